package sandbox

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/isthmus-mesh/isthmus/sandbox/internal/api"
)

// readyTimeout bounds WaitReady.
const readyTimeout = 2 * time.Minute

// Client talks to a sandbox. Safe for concurrent use.
type Client struct {
	stateDir, socket string
	http             *http.Client
}

func newClient(stateDir string) *Client {
	c := &Client{stateDir: stateDir, socket: filepath.Join(stateDir, api.Dir, api.Socket)}
	c.http = &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return c.dial(ctx) }}}
	return c
}

func (c *Client) dial(ctx context.Context) (net.Conn, error) {
	return (&net.Dialer{}).DialContext(ctx, "unix", c.socket)
}

// StateDir is where the sandbox keeps its state.
func (c *Client) StateDir() string { return c.stateDir }

// Supervisor is the process that holds the sandbox: all that runs in it descends from that.
func (c *Client) Supervisor() (pid int, err error) {
	p, err := readProcess(c.stateDir)
	return p.PID, err
}

// do sends a request, and decodes the answer into out unless that is nil.
func (c *Client) do(ctx context.Context, method, path string, query url.Values, body []byte, out any) error {
	response, err := c.send(ctx, method, path, query, body)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if out == nil {
		_, err = io.Copy(io.Discard, response.Body)
		return err
	}
	return json.NewDecoder(response.Body).Decode(out)
}

// send returns a successful response; the caller closes its body.
func (c *Client) send(ctx context.Context, method, path string, query url.Values, body []byte) (*http.Response, error) {
	request, err := http.NewRequestWithContext(ctx, method, "http://sandbox"+path+"?"+query.Encode(), bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	response, err := c.http.Do(request)
	if err != nil {
		return nil, err
	}
	if response.StatusCode/100 == 2 {
		return response, nil
	}
	defer response.Body.Close()
	return nil, responseError(response)
}

func responseError(response *http.Response) error {
	text, err := io.ReadAll(io.LimitReader(response.Body, 64<<10))
	if err != nil || len(bytes.TrimSpace(text)) == 0 {
		return errors.New(response.Status)
	}
	return errors.New(string(bytes.TrimSpace(text)))
}

// Status tells of nodes, pods, services, and what is wrong.
func (c *Client) Status(ctx context.Context) (Status, error) {
	var out Status
	return out, c.do(ctx, http.MethodGet, "/status", nil, nil, &out)
}

// Apply applies a manifest; file is its name in messages. The error tells of all objects that are not in force.
func (c *Client) Apply(ctx context.Context, file string, data []byte) ([]Result, error) {
	return c.ApplyTo(ctx, "default", file, data)
}

// ApplyTo is Apply with a namespace for the objects that name none.
func (c *Client) ApplyTo(ctx context.Context, namespace, file string, data []byte) ([]Result, error) {
	return c.manifests(ctx, "/apply", namespace, file, data)
}

// Delete deletes the objects of a manifest.
func (c *Client) Delete(ctx context.Context, file string, data []byte) ([]Result, error) {
	return c.DeleteFrom(ctx, "default", file, data)
}

// DeleteFrom is Delete with a namespace for the objects that name none.
func (c *Client) DeleteFrom(ctx context.Context, namespace, file string, data []byte) ([]Result, error) {
	return c.manifests(ctx, "/delete", namespace, file, data)
}

func (c *Client) manifests(ctx context.Context, path, namespace, file string, data []byte) ([]Result, error) {
	var out []Result
	if err := c.do(ctx, http.MethodPost, path, url.Values{"file": {file}, "namespace": {namespace}}, data, &out); err != nil {
		return nil, err
	}
	var problems []error
	for _, r := range out {
		if r.Error != "" {
			problems = append(problems, fmt.Errorf("%s: %s", r.Object, r.Error))
		}
	}
	return out, errors.Join(problems...)
}

// DeleteObject deletes one object.
func (c *Client) DeleteObject(ctx context.Context, kind, namespace, name string) error {
	var r Result
	if err := c.do(ctx, http.MethodDelete, "/objects/"+url.PathEscape(kind)+"/"+url.PathEscape(name), url.Values{"namespace": {namespace}}, nil, &r); err != nil {
		return err
	}
	if r.Error != "" {
		return fmt.Errorf("%s: %s", r.Object, r.Error)
	}
	return nil
}

// List returns the objects of a kind, as JSON; an empty namespace is all.
func (c *Client) List(ctx context.Context, kind, namespace string) ([]json.RawMessage, error) {
	var out []json.RawMessage
	return out, c.do(ctx, http.MethodGet, "/objects/"+url.PathEscape(kind), url.Values{"namespace": {namespace}}, nil, &out)
}

// Patch applies a JSON merge patch to an object.
func (c *Client) Patch(ctx context.Context, kind, namespace, name string, patch any) error {
	text, err := json.Marshal(patch)
	if err != nil {
		return err
	}
	return c.do(ctx, http.MethodPatch, "/objects/"+url.PathEscape(kind)+"/"+url.PathEscape(name), url.Values{"namespace": {namespace}}, text, nil)
}

// Label sets labels of an object; a nil value takes one away.
func (c *Client) Label(ctx context.Context, kind, namespace, name string, labels map[string]*string) error {
	return c.Patch(ctx, kind, namespace, name, map[string]any{"metadata": map[string]any{"labels": labels}})
}

// Annotate sets annotations of an object; a nil value takes one away.
func (c *Client) Annotate(ctx context.Context, kind, namespace, name string, annotations map[string]*string) error {
	return c.Patch(ctx, kind, namespace, name, map[string]any{"metadata": map[string]any{"annotations": annotations}})
}

// Scale sets the number of a Deployment's pods.
func (c *Client) Scale(ctx context.Context, namespace, deployment string, replicas int) error {
	return c.Patch(ctx, "Deployment", namespace, deployment, map[string]any{"spec": map[string]any{"replicas": replicas}})
}

// SetEnv gives a workload's first container environment variables besides those that it has, which come before. Its pods are replaced.
func (c *Client) SetEnv(ctx context.Context, kind, namespace, name string, env map[string]string) error {
	objects, err := c.List(ctx, kind, namespace)
	if err != nil {
		return err
	}
	for _, raw := range objects {
		var o struct {
			Metadata struct{ Name string }
			Spec     struct {
				Template struct {
					Spec struct{ Containers []map[string]any }
				}
			}
		}
		if err := json.Unmarshal(raw, &o); err != nil {
			return fmt.Errorf("%s of %s: %w", kind, namespace, err)
		}
		containers := o.Spec.Template.Spec.Containers
		if o.Metadata.Name != name || len(containers) == 0 {
			continue
		}
		all, _ := containers[0]["env"].([]any)
		for _, key := range slices.Sorted(maps.Keys(env)) {
			all = append(all, map[string]string{"name": key, "value": env[key]})
		}
		containers[0]["env"] = all
		return c.Patch(ctx, kind, namespace, name, map[string]any{
			"spec": map[string]any{"template": map[string]any{"spec": map[string]any{"containers": containers}}},
		})
	}
	return fmt.Errorf("there is no %s %s/%s with containers", kind, namespace, name)
}

// Restart replaces the pods of a Deployment, StatefulSet or DaemonSet, as its update strategy says.
func (c *Client) Restart(ctx context.Context, kind, namespace, name string) error {
	return c.do(ctx, http.MethodPost, "/restart/"+url.PathEscape(kind)+"/"+url.PathEscape(name), url.Values{"namespace": {namespace}}, nil, nil)
}

// WaitReady returns when all pods of a namespace, one at least, are ready.
func (c *Client) WaitReady(ctx context.Context, namespace string) error {
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	var missing []string
	for {
		status, err := c.Status(ctx)
		if err == nil {
			missing = nil
			count := 0
			for _, p := range status.Pods {
				if p.Namespace != namespace || p.Terminating {
					continue
				}
				if count++; !p.Ready && p.Phase != "Succeeded" {
					missing = append(missing, strings.TrimSpace(fmt.Sprintf("%s %s %s %s", p.Name, p.Phase, p.Reason, p.Message)))
				}
			}
			if count > 0 && len(missing) == 0 {
				return nil
			}
			missing = append(missing, status.Problems...)
		}
		select {
		case <-time.After(poll):
		case <-ctx.Done():
			return fmt.Errorf("pods of namespace %s are not ready: %s", namespace, strings.Join(missing, "; "))
		}
	}
}

// waitUp waits for the API, and for the mesh's own pods.
func (c *Client) waitUp(ctx context.Context, ended <-chan struct{}) error {
	ctx, cancel := context.WithTimeout(ctx, upTimeout)
	defer cancel()
	var missing []string
	for {
		status, err := c.Status(ctx)
		if err == nil && status.Ready {
			return nil
		}
		missing = nil
		for _, p := range status.Pods {
			if !p.Ready {
				missing = append(missing, strings.TrimSpace(fmt.Sprintf("%s/%s %s %s %s", p.Namespace, p.Name, p.Phase, p.Reason, p.Message)))
			}
		}
		missing = append(missing, status.Problems...)
		if err != nil && ctx.Err() == nil {
			missing = append(missing, err.Error())
		}
		select {
		case <-time.After(poll):
		case <-ended:
			return errors.New("the supervisor has ended")
		case <-ctx.Done():
			return fmt.Errorf("not ready in time: %s", strings.Join(missing, "; "))
		}
	}
}

// ExecIO is what a command reads and writes; nil is nothing.
type ExecIO struct {
	Stdin          io.Reader
	Stdout, Stderr io.Writer
}

// Exec runs a command in a container, the pod's first if none is named, and returns the command's exit code. The pod may be
// named as "deploy/name". When ctx ends, the command does.
func (c *Client) Exec(ctx context.Context, namespace, pod, container string, argv []string, streams ExecIO) (int, error) {
	request, err := json.Marshal(api.Exec{Namespace: namespace, Pod: pod, Container: container, Argv: argv, Stdin: streams.Stdin != nil})
	if err != nil {
		return 0, err
	}
	conn, in, err := c.upgrade(ctx, "/exec", nil, http.Header{"Exec": {string(request)}})
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	frames := api.NewFrames(conn)
	if streams.Stdin != nil {
		go func() {
			_, _ = io.Copy(frames.Stream(api.Stdin), streams.Stdin) // the command may end before its input
			_ = frames.Write(api.StdinEnd, nil)
		}()
	}
	for {
		kind, payload, err := api.ReadFrame(in)
		if err != nil {
			if ctx.Err() != nil {
				err = ctx.Err()
			}
			return 0, fmt.Errorf("connection to the sandbox: %w", err)
		}
		switch kind {
		case api.Stdout:
			err = write(streams.Stdout, payload)
		case api.Stderr:
			err = write(streams.Stderr, payload)
		case api.Ended:
			var exit api.Exit
			if err := json.Unmarshal(payload, &exit); err != nil {
				return 0, err
			}
			if exit.Error != "" {
				return 0, errors.New(exit.Error)
			}
			return exit.Code, nil
		}
		if err != nil {
			return 0, err
		}
	}
}

func write(w io.Writer, data []byte) error {
	if w == nil {
		return nil
	}
	_, err := w.Write(data)
	return err
}

// upgrade sends a request and returns the connection that it was sent on. What has been read ahead is in the reader.
func (c *Client) upgrade(ctx context.Context, path string, query url.Values, header http.Header) (net.Conn, *bufio.Reader, error) {
	conn, err := c.dial(ctx)
	if err != nil {
		return nil, nil, err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://sandbox"+path+"?"+query.Encode(), nil)
	if err != nil {
		conn.Close()
		return nil, nil, err
	}
	for key, values := range header {
		request.Header[key] = values
	}
	request.Header.Set("Connection", "Upgrade")
	request.Header.Set("Upgrade", api.Protocol)
	if err := request.Write(conn); err != nil {
		conn.Close()
		return nil, nil, err
	}
	in := bufio.NewReader(conn)
	response, err := http.ReadResponse(in, request)
	if err != nil {
		conn.Close()
		return nil, nil, err
	}
	if response.StatusCode != http.StatusSwitchingProtocols {
		defer conn.Close()
		return nil, nil, responseError(response)
	}
	return conn, in, nil
}

// Logs returns the output of a container since a moment; the caller closes it. With follow it goes on until then.
func (c *Client) Logs(ctx context.Context, namespace, pod, container string, follow bool, since time.Time) (io.ReadCloser, error) {
	q := url.Values{"namespace": {namespace}, "pod": {pod}, "container": {container}, "follow": {strconv.FormatBool(follow)}}
	if !since.IsZero() {
		q.Set("since", since.UTC().Format(time.RFC3339Nano))
	}
	response, err := c.send(ctx, http.MethodGet, "/logs", q, nil)
	if err != nil {
		return nil, err
	}
	return response.Body, nil
}

// Dial connects to a port on the loopback address of a pod, as port-forward does.
func (c *Client) Dial(ctx context.Context, namespace, pod string, port int) (net.Conn, error) {
	q := url.Values{"namespace": {namespace}, "pod": {pod}, "port": {strconv.Itoa(port)}}
	conn, in, err := c.upgrade(ctx, "/forward", q, nil)
	if err != nil {
		return nil, err
	}
	return &forwarded{conn, in}, nil
}

// forwarded is a connection with what has been read ahead.
type forwarded struct {
	net.Conn
	in *bufio.Reader
}

// Read implements net.Conn.
func (f *forwarded) Read(p []byte) (int, error) { return f.in.Read(p) }

// FabricNetNS opens the network namespace in which the nodes' traffic to each other can be captured, on the interface
// "fabric". The caller closes it.
func (c *Client) FabricNetNS(context.Context) (*os.File, error) { return c.open("pins/fabric") }

// NodeNetNS opens a node's network namespace. The caller closes it.
func (c *Client) NodeNetNS(_ context.Context, node string) (*os.File, error) {
	return c.open(filepath.Join("pins", node))
}

// PodNetNS opens a pod's network namespace. The caller closes it.
func (c *Client) PodNetNS(ctx context.Context, namespace, name string) (*os.File, error) {
	status, err := c.Status(ctx)
	if err != nil {
		return nil, err
	}
	for _, p := range status.Pods {
		if p.Namespace == namespace && p.Name == name && p.NetNS != "" {
			path, err := inSupervisor(c.stateDir, p.NetNS)
			if err != nil {
				return nil, err
			}
			return os.Open(path)
		}
	}
	return nil, fmt.Errorf("pod %s/%s has no network namespace of its own", namespace, name)
}

// open opens a file of the state directory as the supervisor sees it.
func (c *Client) open(name string) (*os.File, error) {
	path, err := inSupervisor(c.stateDir, filepath.Join(c.stateDir, name))
	if err != nil {
		return nil, err
	}
	return os.Open(path)
}

// Package kubeapi writes to the Kubernetes API the few things that a node agent writes. Reading is for pkg/kube/cluster.
package kubeapi

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/rest"
)

// Client talks to an API server, or to the sandbox's small stand-in on a Unix socket.
type Client struct {
	http *http.Client
	base string
	// short is set for the stand-in: pods are at /pods/{namespace}/{name}, and have no preconditions.
	short bool
	// pauses between attempts.
	pauses []time.Duration
}

// New returns a client of an API server.
func New(config *rest.Config) (*Client, error) {
	client, err := rest.HTTPClientFor(config)
	if err != nil {
		return nil, fmt.Errorf("client of the API server: %w", err)
	}
	base, _, err := rest.DefaultServerUrlFor(config)
	if err != nil {
		return nil, fmt.Errorf("address of the API server: %w", err)
	}
	return &Client{http: client, base: strings.TrimSuffix(base.String(), "/"), pauses: []time.Duration{200 * time.Millisecond, time.Second}}, nil
}

// OnSocket returns a client of the stand-in on a Unix socket.
func OnSocket(socket string) *Client {
	return &Client{base: "http://api", short: true, http: &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", socket)
		},
	}}}
}

// Close ends idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// StatusError is an answer that is not a success.
type StatusError struct {
	Code    int
	Message string
}

func (e *StatusError) Error() string {
	return fmt.Sprintf("%d %s: %s", e.Code, http.StatusText(e.Code), e.Message)
}

// CodeOf returns the status that an error stands for, 0 if it is none of the server's.
func CodeOf(err error) int {
	var status *StatusError
	if errors.As(err, &status) {
		return status.Code
	}
	return 0
}

// Annotate writes one annotation of a pod; a nil value takes it away. Another pod of the same name is not touched.
func (c *Client) Annotate(ctx context.Context, pod *corev1.Pod, key string, value *string) error {
	return c.patch(ctx, pod, "annotations", key, value)
}

// Label writes one label of a pod.
func (c *Client) Label(ctx context.Context, pod *corev1.Pod, key, value string) error {
	return c.patch(ctx, pod, "labels", key, &value)
}

func (c *Client) patch(ctx context.Context, pod *corev1.Pod, field, key string, value *string) error {
	metadata := map[string]any{field: map[string]*string{key: value}}
	if !c.short && pod.UID != "" {
		metadata["uid"] = pod.UID // the server refuses to change it: a precondition
	}
	body, err := json.Marshal(map[string]any{"metadata": metadata})
	if err != nil {
		return err
	}
	if _, err := c.do(ctx, http.MethodPatch, c.podPath(pod), "application/merge-patch+json", body); err != nil {
		return fmt.Errorf("patch pod %s/%s: %w", pod.Namespace, pod.Name, err)
	}
	return nil
}

// Delete deletes a pod, and no other one of the same name.
func (c *Client) Delete(ctx context.Context, pod *corev1.Pod) error {
	body, err := json.Marshal(map[string]any{
		"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": map[string]any{"uid": pod.UID},
	})
	if err != nil {
		return err
	}
	_, err = c.do(ctx, http.MethodDelete, c.podPath(pod), "application/json", body)
	if err != nil && CodeOf(err) != http.StatusNotFound {
		return fmt.Errorf("delete pod %s/%s: %w", pod.Namespace, pod.Name, err)
	}
	return nil
}

// DaemonSetGone tells whether a DaemonSet has been deleted, or is about to be.
func (c *Client) DaemonSetGone(ctx context.Context, namespace, name string) (bool, error) {
	body, err := c.do(ctx, http.MethodGet, "/apis/apps/v1/namespaces/"+url.PathEscape(namespace)+"/daemonsets/"+url.PathEscape(name), "", nil)
	if CodeOf(err) == http.StatusNotFound {
		return true, nil
	}
	if err != nil {
		return false, fmt.Errorf("get DaemonSet %s/%s: %w", namespace, name, err)
	}
	var object struct {
		Metadata struct {
			DeletionTimestamp *time.Time `json:"deletionTimestamp"`
		} `json:"metadata"`
	}
	if err := json.Unmarshal(body, &object); err != nil {
		return false, fmt.Errorf("get DaemonSet %s/%s: %w", namespace, name, err)
	}
	return object.Metadata.DeletionTimestamp != nil, nil
}

func (c *Client) podPath(pod *corev1.Pod) string {
	namespace, name := url.PathEscape(pod.Namespace), url.PathEscape(pod.Name)
	if c.short {
		return "/pods/" + namespace + "/" + name
	}
	return "/api/v1/namespaces/" + namespace + "/pods/" + name
}

// do sends a request, and again when the server or the way to it has trouble.
func (c *Client) do(ctx context.Context, method, path, contentType string, body []byte) ([]byte, error) {
	for attempt := 0; ; attempt++ {
		answer, err := c.once(ctx, method, path, contentType, body)
		code := CodeOf(err)
		again := err != nil && (code == 0 || code == http.StatusTooManyRequests || code >= http.StatusInternalServerError)
		if !again || attempt >= len(c.pauses) {
			return answer, err
		}
		select {
		case <-time.After(c.pauses[attempt]):
		case <-ctx.Done():
			return nil, err
		}
	}
}

func (c *Client) once(ctx context.Context, method, path, contentType string, body []byte) ([]byte, error) {
	request, err := http.NewRequestWithContext(ctx, method, c.base+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	if contentType != "" {
		request.Header.Set("Content-Type", contentType)
	}
	request.Header.Set("Accept", "application/json")
	response, err := c.http.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(response.Body, 1<<20))
	if response.StatusCode/100 != 2 {
		return nil, &StatusError{Code: response.StatusCode, Message: messageOf(answer)}
	}
	return answer, err
}

// messageOf reads the message out of a Status object.
func messageOf(answer []byte) string {
	var status struct {
		Message string `json:"message"`
	}
	if json.Unmarshal(answer, &status) == nil && status.Message != "" {
		return status.Message
	}
	return string(bytes.TrimSpace(answer[:min(len(answer), 1<<10)]))
}

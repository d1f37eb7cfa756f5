package supervisor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/isthmus-mesh/isthmus/sandbox/internal/api"
	"github.com/isthmus-mesh/isthmus/sandbox/internal/runtime"
	"github.com/isthmus-mesh/isthmus/sandbox/internal/store"
)

// maxBody bounds a manifest, in bytes.
const maxBody = 16 << 20

// serve opens the API; the function that it returns closes it.
func (s *Supervisor) serve(ctx context.Context) (stop func(), err error) {
	path := filepath.Join(s.cfg.StateDir, api.Dir, api.Socket)
	listener, err := (&net.ListenConfig{}).Listen(ctx, "unix", path)
	if err != nil {
		return nil, fmt.Errorf("open the API: %w", err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		listener.Close()
		return nil, err
	}
	server := &http.Server{Handler: s.handler(), ReadHeaderTimeout: 10 * time.Second}
	go func() {
		if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			s.log.Error("API ended", "error", err)
		}
	}()
	return func() { server.Close() }, nil
}

func (s *Supervisor) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /status", func(w http.ResponseWriter, _ *http.Request) { answer(w, s.status()) })
	mux.HandleFunc("POST /apply", s.manifests(s.apply))
	mux.HandleFunc("POST /delete", s.manifests(s.remove))
	mux.HandleFunc("GET /objects/{kind}", func(w http.ResponseWriter, r *http.Request) {
		list, err := s.shown(s.list(r.PathValue("kind"), r.URL.Query().Get("namespace")))
		if err != nil {
			refuse(w, http.StatusInternalServerError, err)
			return
		}
		answer(w, list)
	})
	mux.HandleFunc("DELETE /objects/{kind}/{name}", func(w http.ResponseWriter, r *http.Request) {
		o, err := s.find(r.PathValue("kind"), r.URL.Query().Get("namespace"), r.PathValue("name"))
		if err != nil {
			refuse(w, http.StatusNotFound, err)
			return
		}
		answer(w, s.removeOne(store.KeyOf(o)))
	})
	mux.HandleFunc("PATCH /objects/{kind}/{name}", func(w http.ResponseWriter, r *http.Request) {
		s.servePatch(w, r, r.PathValue("kind"), r.URL.Query().Get("namespace"), r.PathValue("name"))
	})
	// What the node agents use.
	mux.HandleFunc("PATCH /pods/{namespace}/{name}", func(w http.ResponseWriter, r *http.Request) {
		s.servePatch(w, r, "Pod", r.PathValue("namespace"), r.PathValue("name"))
	})
	mux.HandleFunc("POST /restart/{kind}/{name}", func(w http.ResponseWriter, r *http.Request) {
		patch := fmt.Appendf(nil, `{"spec":{"template":{"metadata":{"annotations":{%q:%q}}}}}`, restartedAt, stamp())
		if err := s.patch(r.PathValue("kind"), r.URL.Query().Get("namespace"), r.PathValue("name"), patch); err != nil {
			refuse(w, http.StatusNotFound, err)
		}
	})
	mux.HandleFunc("GET /logs", s.serveLogs)
	mux.HandleFunc("POST /exec", s.serveExec)
	mux.HandleFunc("POST /forward", s.serveForward)
	return mux
}

func answer(w http.ResponseWriter, value any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(value) // the asker is gone
}

func refuse(w http.ResponseWriter, code int, err error) { http.Error(w, err.Error(), code) }

func (s *Supervisor) manifests(do func(file, namespace string, data []byte) []api.Result) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		data, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
		if err != nil {
			refuse(w, http.StatusBadRequest, err)
			return
		}
		namespace := r.URL.Query().Get("namespace")
		if namespace == "" {
			namespace = "default"
		}
		answer(w, do(r.URL.Query().Get("file"), namespace, data))
	}
}

func (s *Supervisor) servePatch(w http.ResponseWriter, r *http.Request, kind, namespace, name string) {
	data, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err == nil {
		err = s.patch(kind, namespace, name, data)
	}
	if err != nil {
		refuse(w, http.StatusBadRequest, err)
	}
}

func (s *Supervisor) serveLogs(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	name, err := s.podOf(q.Get("namespace"), q.Get("pod"))
	if err != nil {
		refuse(w, http.StatusNotFound, err)
		return
	}
	o, err := s.find("Pod", q.Get("namespace"), name)
	pod, ok := o.(*corev1.Pod)
	if err != nil || !ok {
		refuse(w, http.StatusNotFound, err)
		return
	}
	container := q.Get("container")
	if container == "" && len(pod.Spec.Containers) > 0 {
		container = pod.Spec.Containers[0].Name
	}
	since, err := time.Parse(time.RFC3339Nano, q.Get("since"))
	if err != nil && q.Get("since") != "" {
		refuse(w, http.StatusBadRequest, err)
		return
	}
	file, err := os.Open(s.runtime.LogFile(pod, container))
	if err != nil {
		refuse(w, http.StatusNotFound, fmt.Errorf("container %s of pod %s/%s has no log yet", container, pod.Namespace, pod.Name))
		return
	}
	out := io.Writer(w)
	if q.Get("follow") == "true" {
		f := flusher{w, http.NewResponseController(w)}
		w.WriteHeader(http.StatusOK)
		if err := f.control.Flush(); err != nil { // whoever asks need not wait for a first line
			file.Close()
			return
		}
		out = f
	}
	if err := runtime.CopyLog(r.Context(), file, since, q.Get("follow") == "true", out); err != nil {
		s.log.Debug("log not sent", "error", err)
	}
}

// flusher sends each line at once.
type flusher struct {
	io.Writer
	control *http.ResponseController
}

// Write implements io.Writer.
func (f flusher) Write(p []byte) (int, error) {
	n, err := f.Writer.Write(p)
	if err == nil {
		err = f.control.Flush()
	}
	return n, err
}

// takeOver makes the request's connection ours.
func takeOver(w http.ResponseWriter, r *http.Request) (net.Conn, io.Reader, error) {
	if !api.IsUpgrade(r) {
		return nil, nil, fmt.Errorf("want the header Upgrade: %s", api.Protocol)
	}
	conn, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return nil, nil, err
	}
	_, err = fmt.Fprintf(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: %s\r\n\r\n", api.Protocol)
	if err != nil {
		conn.Close()
		return nil, nil, err
	}
	return conn, buffered, nil
}

func (s *Supervisor) serveExec(w http.ResponseWriter, r *http.Request) {
	var request api.Exec
	if err := json.Unmarshal([]byte(r.Header.Get("Exec")), &request); err != nil {
		refuse(w, http.StatusBadRequest, err)
		return
	}
	pod, err := s.podOf(request.Namespace, request.Pod)
	if err != nil {
		refuse(w, http.StatusNotFound, err)
		return
	}
	conn, in, err := takeOver(w, r)
	if err != nil {
		refuse(w, http.StatusBadRequest, err)
		return
	}
	defer conn.Close()
	ctx, cancel := context.WithCancel(context.WithoutCancel(r.Context()))
	defer cancel()
	frames := api.NewFrames(conn)
	streams := runtime.Streams{Stdout: frames.Stream(api.Stdout), Stderr: frames.Stream(api.Stderr)}
	input, feed := io.Pipe()
	if request.Stdin {
		streams.Stdin = input
	}
	go func() { // the asker's frames; its end ends the command
		defer cancel()
		defer feed.Close()
		for {
			kind, payload, err := api.ReadFrame(in)
			switch {
			case err != nil:
				return
			case kind == api.Stdin && request.Stdin:
				if _, err := feed.Write(payload); err != nil {
					continue // the command reads no more
				}
			case kind == api.StdinEnd:
				feed.Close()
			}
		}
	}()
	exit := api.Exit{}
	exit.Code, err = s.runtime.Exec(ctx, request.Namespace, pod, request.Container, request.Argv, streams)
	input.Close()
	if err != nil {
		exit.Error = err.Error()
	}
	text, _ := json.Marshal(exit)
	_ = frames.Write(api.Ended, text) // the asker is gone
}

// serveForward joins the connection to a port inside a pod.
func (s *Supervisor) serveForward(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	port, err := strconv.ParseUint(q.Get("port"), 10, 16)
	if err != nil {
		refuse(w, http.StatusBadRequest, fmt.Errorf("port: %w", err))
		return
	}
	upstream, err := s.dialPod(r.Context(), q.Get("namespace"), q.Get("pod"), int(port))
	if err != nil {
		refuse(w, http.StatusBadGateway, err)
		return
	}
	defer upstream.Close()
	conn, in, err := takeOver(w, r)
	if err != nil {
		refuse(w, http.StatusBadRequest, err)
		return
	}
	defer conn.Close()
	join(conn, in, upstream)
}

// dialPod connects to a port on the loopback address of a pod.
func (s *Supervisor) dialPod(ctx context.Context, namespace, name string, port int) (net.Conn, error) {
	pod, err := s.podOf(namespace, name)
	if err != nil {
		return nil, err
	}
	set, err := s.netns(namespace, pod)
	if err != nil {
		return nil, err
	}
	var conn net.Conn
	err = set.Do(func() (err error) {
		for _, host := range []string{"127.0.0.1", "::1"} {
			conn, err = (&net.Dialer{Timeout: 5 * time.Second}).DialContext(ctx, "tcp", net.JoinHostPort(host, strconv.Itoa(port)))
			if err == nil {
				return nil
			}
		}
		return err
	})
	return conn, err
}

// join copies both ways until both have ended. What was read ahead of conn is in in.
func join(conn net.Conn, in io.Reader, upstream net.Conn) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = io.Copy(upstream, in) // either end may go away
		closeWrite(upstream)
	}()
	_, _ = io.Copy(conn, upstream)
	closeWrite(conn)
	<-done
}

func closeWrite(c net.Conn) {
	if half, ok := c.(interface{ CloseWrite() error }); ok {
		_ = half.CloseWrite()
		return
	}
	c.Close()
}

// publish opens the ports on the machine.
func (s *Supervisor) publish(ctx context.Context) error {
	for _, spec := range s.cfg.Publish {
		address, target, ok := strings.Cut(spec, "=")
		namespace, service, slash := strings.Cut(target, "/")
		name, port, colon := strings.Cut(service, ":")
		number, err := strconv.ParseInt(port, 10, 32)
		if !ok || !slash || !colon || err != nil {
			return fmt.Errorf("publish %q: want address:port=namespace/service:port", spec)
		}
		listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", address)
		if err != nil {
			return fmt.Errorf("publish %s: %w", spec, err)
		}
		go func() {
			for {
				conn, err := listener.Accept()
				if err != nil {
					return
				}
				go s.forward(ctx, conn, namespace, name, int32(number))
			}
		}()
	}
	return nil
}

// forward carries one connection from the machine to a Service, from the first node.
func (s *Supervisor) forward(ctx context.Context, conn net.Conn, namespace, name string, port int32) {
	defer conn.Close()
	o, ok := s.store.Get(store.Key{Kind: "Service", Namespace: namespace, Name: name})
	service, isService := o.(*corev1.Service)
	if !ok || !isService || service.Spec.ClusterIP == "" {
		s.log.Warn("published Service does not exist", "service", namespace+"/"+name)
		return
	}
	var upstream net.Conn
	err := nsOf(s.nodes[0]).Do(func() (err error) {
		upstream, err = (&net.Dialer{Timeout: 5 * time.Second}).DialContext(ctx, "tcp", net.JoinHostPort(service.Spec.ClusterIP, strconv.Itoa(int(port))))
		return err
	})
	if err != nil {
		s.log.Warn("published Service does not answer", "service", namespace+"/"+name, "error", err)
		return
	}
	defer upstream.Close()
	join(conn, conn, upstream)
}

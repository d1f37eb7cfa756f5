// Package zds hands the network namespaces of enrolled pods to the node's proxy: a message a packet, one at a time, the
// namespace as a file beside it.
package zds

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/isthmus-mesh/isthmus/pkg/api/zds"
)

const (
	// acceptsPerSecond bounds what a proxy that crashes in a loop can cost.
	acceptsPerSecond = 5
	// livenessEvery is how often a silent connection is looked at.
	livenessEvery = 5 * time.Second
)

// ErrNoProxy is returned while no proxy is connected. The pod will be in the next one's snapshot.
var ErrNoProxy = errors.New("no ztunnel is connected to this node's CNI agent")

// Pod is one enrolled pod.
type Pod struct {
	UID, Name, Namespace, ServiceAccount string
	// Netns is the pod's network namespace. The server makes no copy: it must stay open until Del returns.
	Netns *os.File
}

// Config of a Server.
type Config struct {
	Log *slog.Logger
	// Taken is called when a proxy has taken a pod of its snapshot, or refused it.
	Taken func(uid string, err error)
	// Connected is called with the number of proxies connected, whenever it changes.
	Connected func(int)
	// Timeout bounds a write to a proxy, and the wait for its answer; 0 is 5 seconds.
	Timeout time.Duration
}

// Server keeps the enrolled pods and tells the proxies of them. Safe for concurrent use.
type Server struct {
	cfg      Config
	listener *net.UnixListener

	mu    sync.Mutex // guards what follows
	pods  map[string]Pod
	conns []*conn // oldest first
}

// Listen opens the socket, in place of one that an earlier agent has left.
func Listen(path string, cfg Config) (*Server, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, fmt.Errorf("directory of the ztunnel socket: %w", err)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("replace the ztunnel socket: %w", err)
	}
	listener, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: path, Net: "unixpacket"})
	if err != nil {
		return nil, fmt.Errorf("listen on the ztunnel socket: %w", err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		listener.Close()
		return nil, fmt.Errorf("mode of the ztunnel socket: %w", err)
	}
	// The next agent may have made its own socket there by the time this one ends.
	listener.SetUnlinkOnClose(false)
	cfg.Timeout = cmp.Or(cfg.Timeout, exchangeTimeout)
	return &Server{cfg: cfg, listener: listener, pods: map[string]Pod{}}, nil
}

// Serve accepts proxies until ctx ends.
func (s *Server) Serve(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { s.listener.Close() })
	defer stop()
	var serving sync.WaitGroup
	defer serving.Wait()
	limit := rate.NewLimiter(acceptsPerSecond, acceptsPerSecond)
	for {
		if limit.Wait(ctx) != nil {
			return nil
		}
		accepted, err := s.listener.AcceptUnix()
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("accept a ztunnel: %w", err)
		}
		serving.Go(func() { s.serve(ctx, &conn{unix: accepted, timeout: s.cfg.Timeout}) })
	}
}

// serve tells one proxy of all pods, and then watches over its connection until it ends.
func (s *Server) serve(ctx context.Context, c *conn) {
	defer c.unix.Close()
	stop := context.AfterFunc(ctx, func() { c.unix.Close() })
	defer stop()
	if err := c.hello(); err != nil {
		s.cfg.Log.Warn("a ztunnel did not introduce itself", "error", err)
		return
	}
	// Holding the connection, no change overtakes the snapshot.
	c.mu.Lock()
	pods := s.join(c)
	defer s.leave(c)
	err := s.snapshot(c, pods)
	c.mu.Unlock()
	if err != nil {
		if ctx.Err() == nil {
			s.cfg.Log.Warn("connection to a ztunnel lost in its snapshot", "error", err)
		}
		return
	}
	s.cfg.Log.Info("a ztunnel has the pods of this node", "pods", len(pods))
	ticker := time.NewTicker(livenessEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		if err := c.alive(); err != nil {
			if ctx.Err() == nil {
				s.cfg.Log.Info("connection to a ztunnel ended", "reason", err)
			}
			return
		}
	}
}

// join makes c the newest connection, and returns the pods that it has to be told of.
func (s *Server) join(c *conn) []Pod {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.conns = append(s.conns, c)
	s.cfg.Connected(len(s.conns))
	return slices.SortedFunc(maps.Values(s.pods), func(a, b Pod) int {
		if a.UID < b.UID {
			return -1
		}
		return 1
	})
}

func (s *Server) leave(c *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.conns = slices.DeleteFunc(s.conns, func(o *conn) bool { return o == c })
	s.cfg.Connected(len(s.conns))
}

// snapshot fails only when the connection does; a pod that the proxy refuses is reported.
func (s *Server) snapshot(c *conn, pods []Pod) error {
	for _, p := range pods {
		err := c.requestLocked(add(p), p.Netns)
		var refused *RefusedError
		if err != nil && !errors.As(err, &refused) {
			return err
		}
		if err != nil {
			s.cfg.Log.Warn("ztunnel refused a pod of the snapshot", "pod", p.Namespace+"/"+p.Name, "error", err)
		}
		s.cfg.Taken(p.UID, err)
	}
	return c.requestLocked(&zds.WorkloadRequest{Payload: &zds.WorkloadRequest_SnapshotSent{SnapshotSent: &zds.SnapshotSent{}}}, nil)
}

// Add tells the newest proxy of a pod and returns once that serves it. Whatever the outcome, the pod stays known until
// Del, and is part of the snapshot of the next proxy.
func (s *Server) Add(p Pod) error {
	s.mu.Lock()
	s.pods[p.UID] = p
	conns := slices.Clone(s.conns)
	s.mu.Unlock()
	err := ErrNoProxy
	for _, c := range slices.Backward(conns) {
		err = c.request(add(p), p.Netns)
		var refused *RefusedError
		if err == nil || errors.As(err, &refused) {
			return err
		}
		err = fmt.Errorf("%w: %w", ErrNoProxy, err)
	}
	return err
}

// Del tells all proxies to let a pod go. One that does not say that it has loses its connection; the snapshot that it gets on
// the next one is without the pod.
func (s *Server) Del(uid string) error {
	s.mu.Lock()
	_, known := s.pods[uid]
	delete(s.pods, uid)
	conns := slices.Clone(s.conns)
	s.mu.Unlock()
	if !known {
		return nil
	}
	var problems []error
	for _, c := range conns {
		request := &zds.WorkloadRequest{Payload: &zds.WorkloadRequest_Del{Del: &zds.DelWorkload{Uid: uid}}}
		if err := c.request(request, nil); err != nil {
			problems = append(problems, err)
		}
	}
	return errors.Join(problems...)
}

func add(p Pod) *zds.WorkloadRequest {
	return &zds.WorkloadRequest{Payload: &zds.WorkloadRequest_Add{Add: &zds.AddWorkload{
		Uid: p.UID, WorkloadInfo: &zds.WorkloadInfo{Name: p.Name, Namespace: p.Namespace, ServiceAccount: p.ServiceAccount},
	}}}
}

package upgradebed

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/isthmus-mesh/isthmus/tools/bench"
)

const (
	echoPort   = "8080"
	streamPort = "8081"
	// tick is the time between two messages of a streaming call.
	tick = 10 * time.Millisecond
	// patience is how long anything may take before it counts as dropped.
	patience = 30 * time.Second
)

// apps are the server pod's applications.
type apps struct {
	echo net.Listener
	grpc *grpc.Server
}

func (p *pods) startApps(ctx context.Context) (*apps, error) {
	echo, err := p.server.Listen(ctx, "tcp", "0.0.0.0:"+echoPort)
	if err != nil {
		return nil, err
	}
	streams, err := p.server.Listen(ctx, "tcp", "0.0.0.0:"+streamPort)
	if err != nil {
		echo.Close()
		return nil, err
	}
	a := &apps{echo: echo, grpc: grpc.NewServer(grpc.ForceServerCodecV2(bench.NewFrames()), grpc.UnknownServiceHandler(count))}
	go func() {
		for {
			conn, err := echo.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				_, _ = io.Copy(conn, conn) // until the client has had enough
			}()
		}
	}()
	go func() { _ = a.grpc.Serve(streams) }() // until close
	return a, nil
}

func (a *apps) close() {
	a.echo.Close()
	a.grpc.Stop()
}

// count sends a number every tick.
func count(_ any, stream grpc.ServerStream) error {
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	for n := uint64(0); ; n++ {
		if err := stream.SendMsg(&bench.Frame{Data: binary.BigEndian.AppendUint64(nil, n)}); err != nil {
			return err
		}
		select {
		case <-ticker.C:
		case <-stream.Context().Done():
			return stream.Context().Err()
		}
	}
}

// load is what is open while the proxies are replaced.
type load struct {
	pods *pods
	work sync.WaitGroup
	stop context.CancelFunc

	idle                       []net.Conn
	dropped, requests, longest atomic.Int64
	failed                     atomic.Int64 // of the requests

	mu    sync.Mutex // guards first
	first error
}

func (l *load) lost(err error) {
	l.dropped.Add(1)
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.first == nil {
		l.first = err
	}
}

func (l *load) dial(ctx context.Context, port string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	return l.pods.client.Dial(ctx, "tcp", netip.MustParseAddrPort(serverIP+":"+port), netip.Addr{})
}

// startLoad opens idle connections and streaming calls, and begins to send requests, each on a connection of its own.
func startLoad(ctx context.Context, p *pods, o Options) (l *load, err error) {
	ctx, stop := context.WithCancel(ctx)
	l = &load{pods: p, stop: stop}
	defer func() {
		if err != nil {
			l.close()
		}
	}()
	for range o.Idle {
		conn, err := l.dial(ctx, echoPort)
		if err == nil {
			l.idle = append(l.idle, conn)
			err = echo(conn)
		}
		if err != nil {
			return l, fmt.Errorf("open an idle connection: %w", err)
		}
	}
	for range o.Streams {
		if err := l.follow(ctx); err != nil {
			return l, fmt.Errorf("open a streaming call: %w", err)
		}
	}
	l.work.Go(func() {
		for ctx.Err() == nil {
			if err := l.request(ctx); err != nil && ctx.Err() == nil {
				l.failed.Add(1)
				l.lost(fmt.Errorf("request %d: %w", l.requests.Load(), err))
			}
			l.requests.Add(1)
		}
	})
	return l, nil
}

func (l *load) request(ctx context.Context) error {
	conn, err := l.dial(ctx, echoPort)
	if err != nil {
		return err
	}
	defer conn.Close()
	return echo(conn)
}

func echo(conn net.Conn) error {
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	if _, err := conn.Write([]byte("still there?")); err != nil {
		return err
	}
	_, err := io.ReadFull(conn, make([]byte, len("still there?")))
	return err
}

// follow begins a streaming call, on a connection of its own, and reads it until ctx ends.
func (l *load) follow(ctx context.Context) error {
	channel, err := grpc.NewClient("passthrough:///"+serverIP+":"+streamPort, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return l.dial(ctx, streamPort) }),
		grpc.WithDisableRetry())
	if err != nil {
		return err
	}
	stream, err := channel.NewStream(ctx, bench.Bidi(), "/bench.Upgrade/Count", grpc.ForceCodecV2(bench.NewFrames()))
	if err == nil {
		var first bench.Frame
		err = stream.RecvMsg(&first)
	}
	if err != nil {
		channel.Close()
		return err
	}
	l.work.Go(func() {
		defer channel.Close()
		last := time.Now()
		for want := uint64(1); ; want++ {
			var message bench.Frame
			err := stream.RecvMsg(&message)
			switch {
			case ctx.Err() != nil:
				return
			case err == nil && (len(message.Data) != 8 || binary.BigEndian.Uint64(message.Data) != want):
				err = errors.New("a message is missing")
			}
			if err != nil {
				l.lost(fmt.Errorf("streaming call after %d messages: %w", want, err))
				return
			}
			now := time.Now()
			l.gap(now.Sub(last))
			last = now
		}
	})
	return nil
}

// gap keeps the longest time between two messages.
func (l *load) gap(d time.Duration) {
	for {
		before := l.longest.Load()
		if int64(d) <= before || l.longest.CompareAndSwap(before, int64(d)) {
			return
		}
	}
}

// finish asks every idle connection, and ends the rest.
func (l *load) finish() {
	for n, conn := range l.idle {
		if err := echo(conn); err != nil {
			l.lost(fmt.Errorf("idle connection %d: %w", n, err))
		}
	}
	l.close()
}

func (l *load) close() {
	l.stop()
	l.work.Wait()
	for _, conn := range l.idle {
		conn.Close()
	}
	l.idle = nil
}

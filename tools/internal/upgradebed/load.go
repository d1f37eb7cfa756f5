package upgradebed

import (
	"bytes"
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
	// pace is the time between two chunks of a conversation.
	pace = 3 * tick
	// idleWords are what is echoed on connections that are idle otherwise, and in requests.
	idleWords = "still there?"
	// saying is a line of a conversation: its number, and that of the line. Each is as long as the others.
	saying = "what the pods say: conversation %04d, line %012d\n"
	// chunk is how many lines are said at once, ahead how many such may be on their way.
	chunk, ahead = 128, 8
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
	failed                     atomic.Int64   // of the requests
	changed                    atomic.Int64   // conversations in which other bytes came than were sent
	heard                      []atomic.Int64 // chunks that came back, of each conversation

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
	l = &load{pods: p, stop: stop, heard: make([]atomic.Int64, o.Conversations)}
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
	for n := range o.Conversations {
		if err := l.converse(ctx, n); err != nil {
			return l, fmt.Errorf("open a conversation: %w", err)
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
	if _, err := conn.Write([]byte(idleWords)); err != nil {
		return err
	}
	_, err := io.ReadFull(conn, make([]byte, len(idleWords)))
	return err
}

// said is the n-th chunk of a conversation.
func said(conversation, n int) []byte {
	var b bytes.Buffer
	for line := range chunk {
		fmt.Fprintf(&b, saying, conversation, n*chunk+line)
	}
	return b.Bytes()
}

var errChanged = errors.New("other bytes come back")

// converse sends numbered lines on a connection until ctx ends, a chunk at every pace, and expects each of them back, in order, and the
// end behind the last.
func (l *load) converse(ctx context.Context, number int) error {
	conn, err := l.dial(ctx, echoPort)
	if err != nil {
		return err
	}
	under := make(chan int, ahead)
	broken := make(chan struct{})
	l.work.Go(func() {
		defer close(under)
		ticker := time.NewTicker(pace)
		defer ticker.Stop()
		for n := 0; ; n++ {
			select {
			case <-ctx.Done():
				_ = conn.(interface{ CloseWrite() error }).CloseWrite() // the one who reads notices
				return
			case <-broken:
				return
			case under <- n:
			}
			if _, err := conn.Write(said(number, n)); err != nil {
				return // the one who reads notices, too
			}
			<-ticker.C
		}
	})
	l.work.Go(func() {
		defer conn.Close()
		if err := l.listen(conn, number, under); err != nil {
			if errors.Is(err, errChanged) {
				l.changed.Add(1)
			}
			l.lost(fmt.Errorf("conversation %d: %w", number, err))
			close(broken)
		}
	})
	return nil
}

// listen reads what comes back until the end.
func (l *load) listen(conn net.Conn, number int, under <-chan int) error {
	got := make([]byte, len(said(0, 0)))
	for n := range under {
		if err := conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
			return err
		}
		k, err := io.ReadFull(conn, got)
		if !bytes.Equal(got[:k], said(number, n)[:k]) {
			return fmt.Errorf("chunk %d: %w", n, errChanged)
		}
		if err != nil {
			return fmt.Errorf("chunk %d ends after %d bytes: %w", n, k, err)
		}
		l.heard[number].Add(1)
	}
	if n, err := io.Copy(io.Discard, conn); n > 0 || err != nil {
		return errors.Join(fmt.Errorf("%d bytes behind the last", n), err)
	}
	return nil
}

// progress returns when each conversation has heard some more, and a request has been answered.
func (l *load) progress(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	goals := make([]int64, len(l.heard))
	for n := range l.heard {
		goals[n] = l.heard[n].Load() + ahead // what was on its way, and more
	}
	requests, failed := l.requests.Load()+2, l.failed.Load()
	for n := 0; ; {
		switch {
		case n < len(goals) && l.heard[n].Load() >= goals[n]:
			n++
			continue
		case n == len(goals) && l.requests.Load() >= requests && l.failed.Load() == failed:
			return nil
		}
		select {
		case <-time.After(10 * time.Millisecond):
		case <-ctx.Done():
			return fmt.Errorf("conversations do not go on: %d of %d have", n, len(goals))
		}
	}
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

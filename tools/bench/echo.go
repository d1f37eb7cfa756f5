package bench

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

// patience is how long a connection to this machine may take.
const patience = 30 * time.Second

// Echo measures what gRPC itself needs, on this machine and now, for one message of size bytes to n clients, each on a connection of
// its own, and back: from the first write to the last client's answer.
func Echo(ctx context.Context, n, size, rounds int) ([]time.Duration, error) {
	ctx, cancel := context.WithCancel(ctx)
	streams := make(chan grpc.ServerStream, n)
	s := grpc.NewServer(grpc.ForceServerCodecV2(NewFrames()), grpc.UnknownServiceHandler(func(_ any, stream grpc.ServerStream) error {
		streams <- stream
		<-ctx.Done()
		return nil
	}))
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		cancel()
		return nil, err
	}
	var running sync.WaitGroup
	running.Go(func() { _ = s.Serve(l) })
	defer running.Wait()
	defer s.Stop()
	defer cancel()
	answers := make(chan error, n)
	var peers []grpc.ServerStream
	for range n {
		stop, err := reflect(ctx, l.Addr().String(), &running)
		if err != nil {
			return nil, err
		}
		defer stop()
		select {
		case peer := <-streams:
			peers = append(peers, peer)
			running.Go(func() { collect(ctx, peer, answers) })
		case <-time.After(patience):
			return nil, errors.New("a client does not connect")
		}
	}
	for range n {
		if err := <-answers; err != nil { // of the messages that opened the streams
			return nil, err
		}
	}
	return rally(peers, answers, size, rounds)
}

// rally sends to all, and waits for all answers, again and again.
func rally(peers []grpc.ServerStream, answers <-chan error, size, rounds int) ([]time.Duration, error) {
	message := &Frame{make([]byte, size)}
	var out []time.Duration
	for range rounds {
		start := time.Now()
		for _, p := range peers {
			if err := p.SendMsg(message); err != nil {
				return nil, err
			}
		}
		for range peers {
			if err := <-answers; err != nil {
				return nil, err
			}
		}
		out = append(out, time.Since(start))
	}
	return out, nil
}

// collect passes a peer's answers on until there are no more.
func collect(ctx context.Context, peer grpc.ServerStream, answers chan<- error) {
	for {
		err := peer.RecvMsg(&Frame{})
		select {
		case answers <- err:
		case <-ctx.Done():
		}
		if err != nil {
			return
		}
	}
}

// reflect connects a client that sends back what it gets.
func reflect(ctx context.Context, addr string, running *sync.WaitGroup) (stop func(), err error) {
	conn, err := grpc.NewClient(addr, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithDefaultCallOptions(grpc.ForceCodecV2(NewFrames())))
	if err != nil {
		return nil, err
	}
	stream, err := conn.NewStream(ctx, Bidi(), "/bench/Echo")
	if err == nil {
		err = stream.SendMsg(&Frame{}) // opens it on the wire
	}
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("open an echo stream: %w", err)
	}
	running.Go(func() {
		for {
			var f Frame
			if stream.RecvMsg(&f) != nil || stream.SendMsg(&f) != nil {
				return
			}
		}
	})
	return func() { conn.Close() }, nil
}

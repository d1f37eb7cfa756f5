package main

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

// echoSize is about what a WDS response for one pod has.
const echoSize = 300

// measureEcho measures what gRPC itself needs, on this machine and now, for one message to n clients, each on a connection of
// its own, and back: from the first write to the last client's answer.
func measureEcho(ctx context.Context, n, rounds int) ([]time.Duration, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	streams := make(chan grpc.ServerStream, n)
	s := grpc.NewServer(grpc.ForceServerCodecV2(newFrames()), grpc.UnknownServiceHandler(func(_ any, stream grpc.ServerStream) error {
		streams <- stream
		<-ctx.Done()
		return nil
	}))
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() { _ = s.Serve(l) })
	defer s.Stop()
	defer cancel()
	for range n {
		stop, err := echoClient(ctx, l.Addr().String(), &wg)
		if err != nil {
			return nil, err
		}
		defer stop()
	}
	var peers []grpc.ServerStream
	answers := make(chan error, n)
	for range n {
		select {
		case peer := <-streams:
			peers = append(peers, peer)
			wg.Go(func() { collect(peer, answers) })
		case <-time.After(patience):
			return nil, errors.New("clients do not connect")
		}
	}
	return echoRounds(peers, answers, rounds)
}

func echoRounds(peers []grpc.ServerStream, answers <-chan error, rounds int) ([]time.Duration, error) {
	message := &frame{make([]byte, echoSize)}
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

func collect(peer grpc.ServerStream, answers chan<- error) {
	for {
		err := peer.RecvMsg(&frame{})
		select {
		case answers <- err:
		default: // nobody counts any more
		}
		if err != nil {
			return
		}
	}
}

func echoClient(ctx context.Context, addr string, wg *sync.WaitGroup) (stop func(), err error) {
	conn, err := grpc.NewClient(addr, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithDefaultCallOptions(grpc.ForceCodecV2(newFrames())))
	if err != nil {
		return nil, err
	}
	stream, err := conn.NewStream(ctx, bidi(), "/bench/Echo")
	if err == nil {
		err = stream.SendMsg(&frame{}) // opens it on the wire
	}
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("open an echo stream: %w", err)
	}
	wg.Go(func() {
		for {
			var f frame
			if stream.RecvMsg(&f) != nil || stream.SendMsg(&f) != nil {
				return
			}
		}
	})
	return func() { conn.Close() }, nil
}

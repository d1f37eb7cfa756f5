package main

import (
	"context"
	"errors"
	"net"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

// echoSize is about what a response with the routes of one service has.
const echoSize = 1500

// measureEcho measures what gRPC itself needs, on this machine and now, for one message to n clients, each on a connection of its
// own, and back: from the first write to the last answer.
func measureEcho(ctx context.Context, n, rounds int) ([]time.Duration, error) {
	ctx, cancel := context.WithCancel(ctx)
	streams := make(chan grpc.ServerStream, n)
	s := grpc.NewServer(grpc.ForceServerCodecV2(newFrames()), grpc.UnknownServiceHandler(func(_ any, stream grpc.ServerStream) error {
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
			running.Go(func() {
				for {
					err := peer.RecvMsg(&frame{})
					select {
					case answers <- err:
					case <-ctx.Done():
					}
					if err != nil {
						return
					}
				}
			})
		case <-time.After(patience):
			return nil, errors.New("a client does not connect")
		}
	}
	<-answers // of the messages that opened the streams
	for range n - 1 {
		<-answers
	}
	var out []time.Duration
	for range rounds {
		start := time.Now()
		for _, p := range peers {
			if err := p.SendMsg(&frame{make([]byte, echoSize)}); err != nil {
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

// reflect connects a client that sends back what it gets.
func reflect(ctx context.Context, addr string, running *sync.WaitGroup) (stop func(), err error) {
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
		return nil, err
	}
	running.Go(func() {
		for {
			var f frame
			if stream.RecvMsg(&f) != nil || stream.SendMsg(&f) != nil {
				return
			}
		}
	})
	return func() { conn.Close() }, nil
}

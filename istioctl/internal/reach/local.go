package reach

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
)

// Forward forwards the connections to an address of this machine to a port of a pod, until ctx ends. ready is told the port of this
// machine, and failed of connections that could not be made.
func (m *Mesh) Forward(ctx context.Context, pod Pod, port int, address string, ready func(local int), failed func(error)) error {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", address)
	if err != nil {
		return fmt.Errorf("listen on this machine: %w; choose another by --port", err)
	}
	stop := context.AfterFunc(ctx, func() { listener.Close() })
	defer stop()
	defer listener.Close()
	ready(listener.Addr().(*net.TCPAddr).Port)
	var running sync.WaitGroup
	defer running.Wait()
	for {
		local, err := listener.Accept()
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		running.Go(func() {
			if err := m.join(ctx, pod, port, local); err != nil && ctx.Err() == nil {
				failed(err)
			}
		})
	}
}

// join passes bytes on in both directions.
func (m *Mesh) join(ctx context.Context, pod Pod, port int, local net.Conn) error {
	defer local.Close()
	dialling, cancel := m.bound(ctx)
	defer cancel()
	remote, err := m.Dial(dialling, pod, port)
	if err != nil {
		return err
	}
	defer remote.Close()
	stop := context.AfterFunc(ctx, func() { local.Close(); remote.Close() })
	defer stop()
	done := make(chan error, 2)
	for _, way := range [][2]net.Conn{{local, remote}, {remote, local}} {
		go func() {
			_, err := io.Copy(way[0], way[1])
			way[0].Close()
			done <- err
		}()
	}
	err = errors.Join(<-done, <-done)
	if errors.Is(err, net.ErrClosed) || errors.Is(err, io.ErrClosedPipe) {
		return nil
	}
	return err
}

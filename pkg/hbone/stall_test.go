package hbone

import (
	"context"
	"errors"
	"io"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"
)

// A peer that reads nothing is cut, however lively it is otherwise.
func TestAPeerThatNeverReadsIsCut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near, far := net.Pipe()
		served := make(chan error, 1)
		begun := time.Now()
		go func() { served <- ServeConn(context.Background(), far, handlerFunc(echo), ServerConfig{}) }()
		framer := http2.NewFramer(near, near)
		if _, err := io.WriteString(near, http2.ClientPreface); err != nil {
			t.Fatal(err)
		}
		if err := framer.WriteSettings(); err != nil {
			t.Fatal(err)
		}
		ping := time.NewTicker(5 * time.Second)
		defer ping.Stop()
		for {
			select {
			case <-ping.C:
				_ = framer.WritePing(false, [8]byte{}) // until the server has gone
				continue
			case err := <-served:
				if !errors.Is(err, ErrStalled) || CutReason(err) == "" {
					t.Errorf("ended with %v", err)
				}
			}
			break
		}
		if took := time.Since(begun); took > writeTimeout+3*keepaliveInterval {
			t.Errorf("cut after %v", took)
		}
		near.Close()
	})
}

// One that reads slowly, but reads, is served.
func TestAPeerThatReadsSlowlyIsServed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near, far := net.Pipe()
		served := make(chan error, 1)
		go func() { served <- ServeConn(context.Background(), far, handlerFunc(echo), ServerConfig{}) }()
		framer := http2.NewFramer(near, near)
		acks, gone := make(chan struct{}, 1), make(chan struct{})
		go func() {
			defer close(gone)
			for pause := time.NewTicker(writeTimeout / 10); ; {
				<-pause.C
				f, err := framer.ReadFrame()
				if err != nil {
					return
				}
				if ping, ok := f.(*http2.PingFrame); ok && ping.IsAck() {
					acks <- struct{}{}
				}
			}
		}()
		if _, err := io.WriteString(near, http2.ClientPreface); err != nil {
			t.Fatal(err)
		}
		if err := framer.WriteSettings(); err != nil {
			t.Fatal(err)
		}
		for range 20 {
			if err := framer.WritePing(false, [8]byte{}); err != nil {
				t.Fatal(err)
			}
			<-acks
		}
		near.Close()
		<-served
		<-gone
	})
}

// A peer that never says that it speaks HTTP/2 is cut.
func TestAPeerWithoutAPrefaceIsCut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near, far := net.Pipe()
		go func() { _, _ = io.Copy(io.Discard, near) }()
		err := ServeConn(context.Background(), far, handlerFunc(echo), ServerConfig{})
		if !errors.Is(err, errPrefaceTimeout) || CutReason(err) == "" {
			t.Errorf("ended with %v", err)
		}
		near.Close()
	})
}

// A peer that answers nothing any more is cut.
func TestAPeerThatVanishesIsCut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near, far := net.Pipe()
		go func() { _, _ = io.Copy(io.Discard, near) }()
		served := make(chan error, 1)
		begun := time.Now()
		go func() { served <- ServeConn(context.Background(), far, handlerFunc(echo), ServerConfig{}) }()
		framer := http2.NewFramer(near, nil)
		if _, err := io.WriteString(near, http2.ClientPreface); err != nil {
			t.Fatal(err)
		}
		if err := framer.WriteSettings(); err != nil {
			t.Fatal(err)
		}
		if err := <-served; !errors.Is(err, ErrPingTimeout) || CutReason(err) == "" {
			t.Errorf("ended with %v", err)
		}
		if took := time.Since(begun); took > keepaliveTimeout+3*keepaliveInterval {
			t.Errorf("cut after %v", took)
		}
		near.Close()
	})
}

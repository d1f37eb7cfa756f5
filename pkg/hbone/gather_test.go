package hbone

import (
	"io"
	"runtime"
	"sync"
	"testing"
)

// Streams that speak at the same time share writes to the connection, also where one processor runs them one after the other.
func TestConcurrentMessagesShareWrites(t *testing.T) {
	const streams = 64
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	cc, _ := connect(t, handlerFunc(echo), ServerConfig{})
	ctx := deadline(t)
	start := make(chan struct{})
	var ready, answered sync.WaitGroup
	for range streams {
		s, _, err := cc.Connect(ctx, &Request{Authority: "10.0.0.1:80"})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		ready.Add(1)
		answered.Go(func() {
			message := []byte("one of many messages")
			ready.Done()
			<-start
			if _, err := s.Write(message); err != nil {
				t.Error(err)
				return
			}
			answer := make([]byte, len(message))
			if _, err := io.ReadFull(s, answer); err != nil || string(answer) != string(message) {
				t.Errorf("%q, %v", answer, err)
			}
		})
	}
	ready.Wait()
	before := writesOf(cc.c)
	close(start)
	answered.Wait()
	if n := writesOf(cc.c) - before; n > streams/4 {
		t.Errorf("%d writes for %d messages", n, streams)
	}
}

func writesOf(c *conn) uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.writes
}

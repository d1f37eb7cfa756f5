package handover

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/isthmus-mesh/isthmus/pkg/netx"
)

// idleTime bounds the wait for the next offer: an old instance that says nothing for that long has failed.
const idleTime = 2 * time.Minute

// Taker takes over what an old instance offers.
type Taker interface {
	// Take makes everything ready to go on with what body says of the sockets, and touches none of them: nothing is read, written or
	// shut down. It owns the files; the body is cleared after it has returned.
	Take(ctx context.Context, body []byte, files []*os.File) (Taken, error)
}

// Taken is a connection that is ready to go on; one of the two is called.
type Taken interface {
	// Go goes on with it: it is this process's alone now.
	Go()
	// Drop forgets it, of which its peers must not notice anything.
	Drop()
}

// Receiver is the door at which old instances hand over.
type Receiver struct {
	// immutable
	listener *net.UnixListener
	path     string
	own      uint64 // inode of path
	self     Self
	boot     string
	taker    Taker
	log      *slog.Logger
	ctx      context.Context //nolint:containedctx // ends with Close
	stop     context.CancelFunc

	sessions sync.WaitGroup
}

// Listen opens the door: from here on this instance is the successor of all others on the node. dir is made if it does not exist.
func Listen(dir string, self Self, taker Taker, log *slog.Logger) (*Receiver, error) {
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return nil, fmt.Errorf("open the door for a hand-over: %w", err)
	}
	if err := checkDir(dir); err != nil {
		return nil, fmt.Errorf("open the door for a hand-over: %w", err)
	}
	boot, err := bootID()
	if err != nil {
		return nil, fmt.Errorf("open the door for a hand-over: %w", err)
	}
	// Under a name of its own first: renaming takes the place of an older instance's in one step.
	name := filepath.Join(dir, rand.Text()[:8])
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: name, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("open the door for a hand-over: %w", err)
	}
	listener.SetUnlinkOnClose(false)
	r := &Receiver{
		listener: listener, path: doorOf(dir), own: inode(name), self: self.withDefaults(), boot: boot, taker: taker, log: log,
	}
	if err = os.Chmod(name, 0o600); err == nil {
		err = os.Rename(name, r.path)
	}
	if err != nil {
		listener.Close()
		_ = os.Remove(name)
		return nil, fmt.Errorf("open the door for a hand-over: %w", err)
	}
	r.ctx, r.stop = context.WithCancel(context.Background())
	r.sessions.Go(r.accept)
	return r, nil
}

// Close shuts the door, unless a newer instance has put its own there, and waits for a hand-over that is under way to end: what has
// not been taken by then is not.
func (r *Receiver) Close() {
	if inode(r.path) == r.own {
		_ = os.Remove(r.path)
	}
	r.stop()
	r.listener.Close()
	r.sessions.Wait()
}

func (r *Receiver) accept() {
	for {
		conn, err := r.listener.AcceptUnix()
		switch {
		case err == nil:
			r.sessions.Go(func() { r.serve(conn) })
		case errors.Is(err, net.ErrClosed):
			return
		default:
			r.log.Warn("accept an old instance", "error", err)
			select {
			case <-time.After(time.Second):
			case <-r.ctx.Done():
				return
			}
		}
	}
}

func (r *Receiver) serve(conn *net.UnixConn) {
	defer conn.Close()
	defer context.AfterFunc(r.ctx, func() { conn.Close() })()
	c := channel{conn}
	if err := r.meet(c); err != nil {
		r.log.Warn("an old instance is not believed; it drains", "error", err)
		_ = c.send(head{kind: kindRefused}, reason(err), nil, time.Now().Add(time.Second)) // the conversation ends in any case
		return
	}
	taken, refused := 0, 0
	for r.ctx.Err() == nil {
		h, body, files, err := c.receive(time.Now().Add(idleTime))
		if err == nil && h.kind != kindOffer {
			netx.CloseFiles(files)
			err = errors.New("a message that is no offer")
		}
		if err != nil {
			if !errors.Is(err, io.EOF) {
				r.log.Warn("the hand-over broke off; what was taken goes on here", "error", err)
			}
			break
		}
		ready, err := r.taker.Take(r.ctx, body, files)
		clear(body)
		if err != nil {
			refused++
			r.log.Info("a connection stays with the old instance", "error", err)
			err = c.send(head{kind: kindRefused, id: h.id}, reason(err), nil, time.Now().Add(offerTime))
		} else if err = c.send(head{kind: kindTaken, id: h.id}, nil, nil, time.Now().Add(offerTime)); err != nil {
			ready.Drop() // the old instance has given up waiting, and goes on; or it is gone, and the connection with it
		} else {
			taken++
			ready.Go()
		}
		if err != nil {
			r.log.Warn("the hand-over broke off; what was taken goes on here", "error", err)
			break
		}
	}
	r.log.Info("an old instance has handed over", "connections", taken, "refused", refused)
}

// meet makes sure of who is there.
func (r *Receiver) meet(c channel) error {
	if err := checkPeer(c.conn); err != nil {
		return err
	}
	deadline := time.Now().Add(meetTime)
	h, body, _, err := c.receive(deadline)
	if err != nil {
		return fmt.Errorf("the greeting: %w", err)
	}
	if h.kind != kindHello {
		return errors.New("no greeting")
	}
	if _, err := r.self.meet(body, r.boot); err != nil {
		return err
	}
	return c.send(head{kind: kindHello}, r.self.encode(r.boot), nil, deadline)
}

func reason(err error) []byte {
	text := err.Error()
	return []byte(text[:min(len(text), maxHello)])
}

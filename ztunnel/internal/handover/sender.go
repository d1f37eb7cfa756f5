package handover

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"syscall"
	"time"
)

const (
	// meetTime bounds the greeting.
	meetTime = 5 * time.Second
	// offerTime bounds one offer: the connection stands still meanwhile.
	offerTime = 5 * time.Second
)

// ErrRefused means that the successor does not take what was offered. Further offers may fare better.
var ErrRefused = errors.New("the successor refuses")

// Sender offers connections to the successor. Not safe for concurrent use.
type Sender struct {
	channel channel
	version uint64
	last    uint32
	broken  error // why nothing more can be offered
	wait    time.Duration
}

// Dial meets the successor; without one it is ErrNoSuccessor.
func Dial(ctx context.Context, dir string, self Self) (*Sender, error) {
	self = self.withDefaults()
	if err := checkDir(dir); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil, ErrNoSuccessor
		}
		return nil, fmt.Errorf("hand over: %w", err)
	}
	boot, err := bootID()
	if err != nil {
		return nil, fmt.Errorf("hand over: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, meetTime)
	defer cancel()
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", doorOf(dir))
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED) {
			return nil, ErrNoSuccessor
		}
		return nil, fmt.Errorf("hand over: %w", err)
	}
	s := &Sender{channel: channel{conn.(*net.UnixConn)}, wait: offerTime}
	if err := s.greet(self, boot); err != nil {
		conn.Close()
		return nil, fmt.Errorf("hand over: %w", err)
	}
	return s, nil
}

func (s *Sender) greet(self Self, boot string) error {
	if err := checkPeer(s.channel.conn); err != nil {
		return err
	}
	deadline := time.Now().Add(meetTime)
	if err := s.channel.send(head{kind: kindHello}, self.encode(boot), nil, deadline); err != nil {
		return fmt.Errorf("greet the successor: %w", err)
	}
	h, body, _, err := s.channel.receive(deadline)
	switch {
	case err != nil:
		return fmt.Errorf("the successor's greeting: %w", err)
	case h.kind == kindRefused:
		return fmt.Errorf("%w: %s", ErrRefused, body)
	case h.kind != kindHello:
		return errors.New("the successor does not greet")
	}
	s.version, err = self.meet(body, boot)
	return err
}

// Version is that of the messages, on which both sides have agreed.
func (s *Sender) Version() uint64 { return s.version }

// Offer returns nil once the successor goes on with what body says of the sockets fds. With any error it does not, and never will:
// the caller goes on. The body is the caller's to clear.
func (s *Sender) Offer(body []byte, fds []int) error {
	if s.broken != nil {
		return s.broken
	}
	if len(body) > maxBody || len(fds) > MaxFiles {
		return fmt.Errorf("%d bytes and %d sockets are more than go with one offer", len(body), len(fds))
	}
	s.last++
	deadline := time.Now().Add(s.wait)
	if err := s.channel.send(head{kind: kindOffer, id: s.last}, body, fds, deadline); err != nil {
		// The successor has not seen the end of it, and takes nothing by halves.
		s.end(fmt.Errorf("offer a connection: %w", err))
		return s.broken
	}
	err := s.answer(deadline)
	if err != nil && !errors.Is(err, ErrRefused) {
		// Nobody knows whether it was taken. From here on the successor cannot say so any more; if it has, that is in the socket.
		s.end(fmt.Errorf("the successor's answer: %w", err))
		if s.answer(time.Now().Add(time.Second)) == nil {
			return nil
		}
		return s.broken
	}
	return err
}

// answer reads what the successor says to the last offer.
func (s *Sender) answer(deadline time.Time) error {
	h, body, _, err := s.channel.receive(deadline)
	switch {
	case err != nil:
		return err
	case h.id != s.last || h.kind != kindTaken && h.kind != kindRefused:
		return errors.New("an answer to something else")
	case h.kind == kindRefused:
		return fmt.Errorf("%w: %s", ErrRefused, body)
	}
	return nil
}

// end takes the successor the means to say that it has taken something: its writes fail from here on.
func (s *Sender) end(why error) {
	s.broken = why
	_ = s.channel.conn.CloseRead()
}

// Close ends the conversation.
func (s *Sender) Close() error { return s.channel.conn.Close() }

package h1

import (
	"errors"
	"fmt"
)

// Error is a message that breaks the rules of HTTP/1.1, or ours, which are stricter.
type Error struct {
	Status int // what a server answers
	Reason string
}

// Error implements error.
func (e *Error) Error() string {
	return fmt.Sprintf("http/1 message refused with %d: %s", e.Status, e.Reason)
}

func bad(reason string) *Error { return &Error{400, reason} }

// Errors of the local side's own making.
var (
	errBusy      = errors.New("connection carries another request")
	errClosing   = errors.New("connection is closing")
	errResponded = errors.New("response head was already sent")
	errNoHead    = errors.New("response head was not sent")
	errFinished  = errors.New("message is finished")
	errTooMuch   = errors.New("body is longer than its content-length")
	errTooLittle = errors.New("body is shorter than its content-length")
	errNoTunnel  = errors.New("neither an upgrade nor a CONNECT was accepted")
	errBody      = errors.New("message cannot have a body")
)

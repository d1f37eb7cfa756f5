package upstream

import (
	"context"
	"errors"
	"net"
	"strings"
	"syscall"

	"github.com/isthmus-mesh/isthmus/pkg/h1"
	"github.com/isthmus-mesh/isthmus/pkg/hbone"
	"github.com/isthmus-mesh/isthmus/pkg/httpmsg"
	"github.com/isthmus-mesh/isthmus/waypoint/l7"
)

// Reason is why an attempt ended without a (whole) response, in Envoy's terms.
type Reason uint8

// The reasons.
const (
	ConnectionFailure Reason = iota
	ConnectionTimeout
	ConnectionTermination
	RemoteReset
	RemoteRefused
	LocalReset
	Overflow
	ProtocolError
)

// String is as in bodies and, with underscores, in details.
func (r Reason) String() string {
	switch r {
	case ConnectionFailure:
		return "remote connection failure"
	case ConnectionTimeout:
		return "connection timeout"
	case ConnectionTermination:
		return "connection termination"
	case RemoteReset:
		return "remote reset"
	case RemoteRefused:
		return "remote refused stream reset"
	case LocalReset:
		return "local reset"
	case Overflow:
		return "overflow"
	case ProtocolError:
		return "protocol error"
	}
	return ""
}

// Flags are those of the access log.
func (r Reason) Flags() l7.Flags {
	switch r {
	case ConnectionFailure, ConnectionTimeout:
		return l7.FlagUpstreamConnectionFailure
	case ConnectionTermination:
		return l7.FlagUpstreamConnectionTermination
	case RemoteReset, RemoteRefused:
		return l7.FlagUpstreamRemoteReset
	case LocalReset:
		return l7.FlagLocalReset
	case Overflow:
		return l7.FlagUpstreamOverflow
	case ProtocolError:
		return l7.FlagUpstreamProtocolError
	}
	return 0
}

// Error is an attempt that failed.
type Error struct {
	Reason Reason
	// Transport is why a connection could not be made, with underscores for spaces as in access logs; or "".
	Transport string
	// Unsent is whether the peer has surely not acted on the request.
	Unsent bool
	Err    error
}

// Error implements error.
func (e *Error) Error() string { return e.Reason.String() + ": " + e.Err.Error() }

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Failure is what a retry policy makes of it.
func (e *Error) Failure() l7.Failure {
	switch e.Reason {
	case ConnectionFailure, ConnectionTimeout:
		return l7.FailureConnect
	case RemoteRefused:
		return l7.FailureRefused
	case Overflow:
		return l7.FailureOverflow
	case ConnectionTermination, RemoteReset, LocalReset, ProtocolError:
	}
	if e.Unsent {
		return l7.FailureResetUnsent
	}
	return l7.FailureReset
}

// Broken classifies an error of an exchange that was opened.
func Broken(err error) *Error {
	var known *Error
	var protocol *h1.Error
	switch {
	case errors.As(err, &known):
		return known
	case errors.Is(err, httpmsg.ErrNotSent) && errors.Is(err, httpmsg.ErrReset):
		return &Error{Reason: RemoteRefused, Unsent: true, Err: err}
	case errors.Is(err, httpmsg.ErrNotSent):
		return &Error{Reason: ConnectionTermination, Unsent: true, Err: err}
	case errors.Is(err, httpmsg.ErrReset):
		return &Error{Reason: RemoteReset, Err: err}
	case errors.As(err, &protocol):
		return &Error{Reason: ProtocolError, Err: err}
	}
	return &Error{Reason: ConnectionTermination, Err: err}
}

// unreachable classifies an error of making a connection.
func unreachable(err error) *Error {
	e := &Error{Reason: ConnectionFailure, Unsent: true, Err: err}
	var status *hbone.StatusError
	var errno syscall.Errno
	var timeout net.Error
	var identity *IdentityError
	switch {
	case errors.As(err, &identity):
		e.Transport = "TLS_error: peer identity: " + identity.Error()
	case errors.As(err, &status):
		e.Transport = status.Error()
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		e.Reason = ConnectionTimeout
	case errors.As(err, &errno):
		e.Transport = "delayed connect error: " + capital(errno.Error())
	default:
		e.Transport = err.Error()
	}
	e.Transport = strings.ReplaceAll(e.Transport, " ", "_")
	return e
}

// capital is the text as strerror gives it.
func capital(s string) string {
	if s == "" {
		return s
	}
	return strings.ToUpper(s[:1]) + s[1:]
}

package proxy

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"

	"github.com/isthmus-mesh/isthmus/pkg/hbone"
	"github.com/isthmus-mesh/isthmus/ztunnel/l4"
)

// The values of the metric label response_flags.
const (
	flagNone          = "-"
	flagDeny          = "DENY"
	flagConnect       = "CONNECT"
	flagTLS           = "TLS_FAILURE"
	flagH2            = "H2_HANDSHAKE_FAILURE"
	flagNetworkPolicy = "NETWORK_POLICY"
	flagIdentity      = "IDENTITY_ERROR"
	flagRevoked       = "CERT_REVOKED"
)

// failure is an error with the flag under which it is counted.
type failure struct {
	flag string
	err  error
}

func (f *failure) Error() string { return f.err.Error() }
func (f *failure) Unwrap() error { return f.err }

func fail(flag, format string, args ...any) error {
	return &failure{flag, fmt.Errorf(format, args...)}
}

// flagOf is the flag of an error; failures without one are failures to connect.
func flagOf(err error) string {
	var f *failure
	if errors.As(err, &f) {
		return f.flag
	}
	return flagConnect
}

// isTimeout reports whether err is a dial that nobody answered.
func isTimeout(err error) bool {
	var netErr net.Error
	return errors.Is(err, context.DeadlineExceeded) || errors.Is(err, os.ErrDeadlineExceeded) ||
		errors.As(err, &netErr) && netErr.Timeout()
}

// explainDial adds a guess to a failed TCP connection.
func explainDial(target netip.AddrPort, err error) error {
	if isTimeout(err) && target.Port() == l4.HBONEPort {
		return fail(flagNetworkPolicy, "connect %s: timed out, maybe a NetworkPolicy or firewall blocks port %d: %w",
			target, l4.HBONEPort, err)
	}
	return fail(flagConnect, "connect %s: %w", target, err)
}

// isAlert reports whether the peer ended the connection by a TLS alert, which package tls tells only by the operation of the error.
func isAlert(err error) bool {
	var alert tls.AlertError
	var op *net.OpError
	return errors.As(err, &alert) || errors.As(err, &op) && op.Op == "remote error"
}

// explainTunnel says what a peer's refusal means.
func explainTunnel(target netip.AddrPort, err error) error {
	var status *hbone.StatusError
	var f *failure
	switch {
	case errors.As(err, &f):
		return err
	case isAlert(err):
		return fail(flagTLS, "tunnel to %s: the peer refused our certificate: %w", target, err)
	case !errors.As(err, &status):
		return fail(flagConnect, "tunnel to %s: %w", target, err)
	case status.Status == 401:
		return fail(flagDeny, "tunnel to %s: denied by the destination's policy; its log names the rule: %w", target, err)
	case status.Status == 503:
		return fail(flagConnect, "tunnel to %s: the destination could not reach its application; is it listening?: %w", target, err)
	default:
		return fail(flagConnect, "tunnel to %s: %w", target, err)
	}
}

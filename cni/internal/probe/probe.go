// Package probe asks a pod's tunnel who it is. Before a running pod's traffic is redirected, its proxy must answer on the
// tunnel's port, from inside the pod's network namespace, with the certificate of the pod.
package probe

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/isthmus-mesh/isthmus/cni/internal/netns"
	"github.com/isthmus-mesh/isthmus/cni/redirect/plan"
	"github.com/isthmus-mesh/isthmus/pkg/spiffe"
)

// patience bounds one probe.
const patience = 3 * time.Second

// Tunnel connects to the tunnel's port on ip, from inside ns, and checks that the certificate shown is that of the pod's
// service account. Who signed it is for the pod's peers to judge. Nothing is sent through: the probe has no identity, so the
// proxy ends the connection after it has introduced itself.
func Tunnel(ctx context.Context, ns *os.File, ip netip.Addr, namespace, account string) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	target := netip.AddrPortFrom(ip, plan.PortHBONE).String()
	var raw net.Conn
	err := netns.Do(ns, func() error {
		dialer := net.Dialer{Control: own, KeepAlive: -1}
		dialer.SetMultipathTCP(false)
		var err error
		raw, err = dialer.DialContext(ctx, "tcp", target)
		return err
	})
	if err != nil {
		return fmt.Errorf("the pod's tunnel on %s does not answer: %w", target, err)
	}
	defer raw.Close()
	conn := tls.Client(raw, &tls.Config{
		MinVersion: tls.VersionTLS13, NextProtos: []string{"h2"},
		InsecureSkipVerify: true, //nolint:gosec // see VerifyConnection: the question is who answers, not whom to trust
		VerifyConnection:   func(state tls.ConnectionState) error { return verify(state, namespace, account) },
	})
	if err := conn.HandshakeContext(ctx); err != nil {
		return fmt.Errorf("the pod's tunnel on %s: %w", target, err)
	}
	return nil
}

func verify(state tls.ConnectionState, namespace, account string) error {
	if len(state.PeerCertificates) == 0 {
		return errors.New("no certificate")
	}
	id, ok := spiffe.FromCertificate(state.PeerCertificates[0])
	if !ok {
		return errors.New("a certificate without an identity")
	}
	if id.Namespace != namespace || id.ServiceAccount != account {
		return fmt.Errorf("the certificate is that of %s, the pod's service account is %s/%s", id, namespace, account)
	}
	return nil
}

// own marks the probe's packets like the proxy's: they are never redirected.
func own(_, _ string, c syscall.RawConn) error {
	var err error
	ctlErr := c.Control(func(fd uintptr) {
		err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_MARK, int(plan.OwnMark().Value))
	})
	if err == nil {
		err = ctlErr
	}
	return err
}

package dns

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/miekg/dns"
)

// forwardTimeout bounds one exchange with one resolver.
const forwardTimeout = 3 * time.Second

// Dialer opens sockets in the pod's network namespace.
type Dialer interface {
	Dial(ctx context.Context, network string, addr netip.AddrPort, local netip.Addr) (net.Conn, error)
}

// Forwarder asks other resolvers what the mesh does not know. It is immutable and shared by all pods.
type Forwarder struct {
	upstreams []netip.AddrPort
}

// NewForwarder takes the resolvers to ask, in order; addresses without a port are asked on 53.
func NewForwarder(upstreams []netip.AddrPort) *Forwarder { return &Forwarder{upstreams: upstreams} }

// ReadResolvers takes the name servers of a resolv.conf file.
func ReadResolvers(path string) ([]netip.AddrPort, error) {
	config, err := dns.ClientConfigFromFile(path)
	if err != nil {
		return nil, fmt.Errorf("read resolvers: %w", err)
	}
	var out []netip.AddrPort
	for _, server := range config.Servers {
		ip, err := netip.ParseAddr(server)
		if err != nil {
			return nil, fmt.Errorf("resolver %q in %s: %w", server, path, err)
		}
		out = append(out, netip.AddrPortFrom(ip, 53))
	}
	return out, nil
}

// Exchange forwards the query over network ("udp" or "tcp") from where dialer dials, and returns the first answer.
func (f *Forwarder) Exchange(ctx context.Context, dialer Dialer, network string, query *dns.Msg) (*dns.Msg, error) {
	if len(f.upstreams) == 0 {
		return nil, errors.New("no resolver is configured: the resolv.conf of the proxy names none")
	}
	var failures []error
	for _, upstream := range f.upstreams {
		response, err := exchange(ctx, dialer, network, upstream, query)
		if err == nil {
			return response, nil
		}
		failures = append(failures, fmt.Errorf("resolver %s: %w", upstream, err))
	}
	return nil, errors.Join(failures...)
}

func exchange(ctx context.Context, dialer Dialer, network string, upstream netip.AddrPort, query *dns.Msg) (*dns.Msg, error) {
	ctx, cancel := context.WithTimeout(ctx, forwardTimeout)
	defer cancel()
	conn, err := dialer.Dial(ctx, network, upstream, netip.Addr{})
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	client := &dns.Client{Net: network, Timeout: forwardTimeout, UDPSize: udpSize(query)}
	response, _, err := client.ExchangeWithConnContext(ctx, query, &dns.Conn{Conn: conn, UDPSize: udpSize(query)})
	return response, err
}

// udpSize is how large a datagram the asker takes, in bytes.
func udpSize(query *dns.Msg) uint16 {
	if opt := query.IsEdns0(); opt != nil {
		return max(opt.UDPSize(), dns.MinMsgSize)
	}
	return dns.MinMsgSize
}

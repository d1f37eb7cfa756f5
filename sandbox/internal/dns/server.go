package dns

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"

	"github.com/isthmus-mesh/isthmus/sandbox/internal/ns"
)

const (
	ttl            = 5 // seconds
	forwardTimeout = 3 * time.Second
)

// Server answers in one network namespace.
type Server struct {
	records   atomic.Pointer[Records]
	upstreams []string
	log       *slog.Logger
	servers   []*dns.Server
	done      sync.WaitGroup
}

// Listen answers at addr in the node's network namespace, on a loopback address that it adds there. upstreams are the
// resolvers of the machine, "ip:port"; they are asked from the caller's own network namespace.
func Listen(ctx context.Context, node *os.File, addr netip.AddrPort, upstreams []string, log *slog.Logger) (*Server, error) {
	if err := addAddress(node, addr.Addr()); err != nil {
		return nil, fmt.Errorf("address of the cluster's DNS: %w", err)
	}
	s := &Server{upstreams: upstreams, log: log}
	s.Set(Build("cluster.local", nil, nil))
	var packets net.PacketConn
	var streams net.Listener
	err := ns.Set{Net: node}.Do(func() (err error) {
		var config net.ListenConfig
		if packets, err = config.ListenPacket(ctx, "udp", addr.String()); err != nil {
			return err
		}
		streams, err = config.Listen(ctx, "tcp", addr.String())
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("listen for DNS: %w", err)
	}
	s.serve(&dns.Server{PacketConn: packets, Handler: s.handler("udp")})
	s.serve(&dns.Server{Listener: streams, Handler: s.handler("tcp")})
	return s, nil
}

func addAddress(node *os.File, ip netip.Addr) error {
	h, err := netlink.NewHandleAt(netns.NsHandle(int(node.Fd())))
	if err != nil {
		return err
	}
	defer h.Close()
	lo, err := h.LinkByName("lo")
	if err != nil {
		return err
	}
	return h.AddrReplace(lo, &netlink.Addr{IPNet: &net.IPNet{IP: ip.AsSlice(), Mask: net.CIDRMask(ip.BitLen(), ip.BitLen())}})
}

func (s *Server) serve(server *dns.Server) {
	started := make(chan struct{})
	server.NotifyStartedFunc = sync.OnceFunc(func() { close(started) })
	s.servers = append(s.servers, server)
	s.done.Go(func() {
		if err := server.ActivateAndServe(); err != nil && !errors.Is(err, net.ErrClosed) {
			s.log.Error("cluster DNS ended", "error", err)
		}
	})
	<-started
}

// Set puts other records in force.
func (s *Server) Set(r *Records) { s.records.Store(r) }

// Close stops answering.
func (s *Server) Close() {
	for _, server := range s.servers {
		_ = server.Shutdown()
	}
	s.done.Wait()
}

func (s *Server) handler(network string) dns.HandlerFunc {
	return func(w dns.ResponseWriter, query *dns.Msg) {
		response, own := s.records.Load().Answer(query)
		if !own {
			response = s.forward(network, query)
		} else if target := chase(response); target != "" {
			s.follow(network, query, response, target)
		}
		if network == "udp" {
			size := uint16(dns.MinMsgSize)
			if opt := query.IsEdns0(); opt != nil {
				size = max(size, opt.UDPSize())
			}
			response.Truncate(int(size))
		}
		_ = w.WriteMsg(response) // the asker tries again
	}
}

// Answer answers a query about the cluster's names; own is false for any other.
func (r *Records) Answer(query *dns.Msg) (response *dns.Msg, own bool) {
	if len(query.Question) != 1 || query.Opcode != dns.OpcodeQuery {
		return new(dns.Msg).SetRcode(query, dns.RcodeFormatError), true
	}
	question := query.Question[0]
	name := strings.ToLower(question.Name)
	if !dns.IsSubDomain(r.domain, name) {
		return nil, false
	}
	response = new(dns.Msg).SetReply(query)
	response.Authoritative, response.RecursionAvailable = true, true
	head := func(kind uint16) dns.RR_Header {
		return dns.RR_Header{Name: question.Name, Rrtype: kind, Class: dns.ClassINET, Ttl: ttl}
	}
	if target, ok := r.cnames[name]; ok {
		response.Answer = append(response.Answer, &dns.CNAME{Hdr: head(dns.TypeCNAME), Target: target})
		return response, true
	}
	for _, ip := range r.addrs[name] {
		switch {
		case question.Qtype == dns.TypeA && ip.Is4():
			response.Answer = append(response.Answer, &dns.A{Hdr: head(dns.TypeA), A: ip.AsSlice()})
		case question.Qtype == dns.TypeAAAA && ip.Is6():
			response.Answer = append(response.Answer, &dns.AAAA{Hdr: head(dns.TypeAAAA), AAAA: ip.AsSlice()})
		}
	}
	if question.Qtype == dns.TypeSRV {
		for _, t := range r.srvs[name] {
			response.Answer = append(response.Answer, &dns.SRV{Hdr: head(dns.TypeSRV), Weight: 100, Port: t.port, Target: t.target})
		}
	}
	if len(response.Answer) == 0 {
		response.Ns = append(response.Ns, &dns.SOA{
			Hdr: dns.RR_Header{Name: r.domain, Rrtype: dns.TypeSOA, Class: dns.ClassINET, Ttl: ttl},
			Ns:  "ns.dns." + r.domain, Mbox: "hostmaster." + r.domain, Serial: 1, Refresh: 7200, Retry: 1800, Expire: 86400, Minttl: ttl,
		})
		if !r.exists[name] {
			response.Rcode = dns.RcodeNameError
		}
	}
	return response, true
}

// chase returns the target of an answer that is only another name.
func chase(response *dns.Msg) string {
	if len(response.Answer) == 1 {
		if cname, ok := response.Answer[0].(*dns.CNAME); ok && response.Question[0].Qtype != dns.TypeCNAME {
			return cname.Target
		}
	}
	return ""
}

// follow adds what an ExternalName's target resolves to.
func (s *Server) follow(network string, query, response *dns.Msg, target string) {
	next := query.Copy()
	next.Question[0].Name = target
	found, own := s.records.Load().Answer(next)
	if !own {
		found = s.forward(network, next)
	}
	response.Answer = append(response.Answer, found.Answer...)
}

// forward asks the machine's resolvers.
func (s *Server) forward(network string, query *dns.Msg) *dns.Msg {
	client := &dns.Client{Net: network, Timeout: forwardTimeout}
	for _, upstream := range s.upstreams {
		if response, _, err := client.Exchange(query, upstream); err == nil {
			response.Id = query.Id
			return response
		}
	}
	return new(dns.Msg).SetRcode(query, dns.RcodeServerFailure)
}

// Upstreams reads the machine's resolvers from a resolv.conf file; none is no error.
func Upstreams(path string) []string {
	config, err := dns.ClientConfigFromFile(path)
	if err != nil {
		return nil
	}
	var out []string
	for _, server := range config.Servers {
		out = append(out, net.JoinHostPort(server, config.Port))
	}
	return out
}

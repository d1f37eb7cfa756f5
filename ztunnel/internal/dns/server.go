package dns

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"

	"github.com/isthmus-mesh/isthmus/pkg/netx"
	"github.com/isthmus-mesh/isthmus/ztunnel/l4"
)

// Port is where queries of a pod arrive after redirection, and portAsked where they were sent to.
const (
	Port      = "15053"
	portAsked = 53
)

// answerTTL of what the mesh answers, in seconds.
const answerTTL = 30

// Config is shared by the servers of all pods.
type Config struct {
	Settings  Settings
	Store     interface{ Load() *l4.State }
	Forwarder *Forwarder
	Metrics   *Metrics
	Log       *slog.Logger
	// Identify finds the workload that the pod is; it may wait a little, as a pod may ask before the control plane has told of it.
	// Nil: it stays unknown, and the query is refused with SERVFAIL.
	Identify func(ctx context.Context) *l4.Workload
	// LastAnswers is how long a server that closes waits for answers to what it was asked before; default 3 s.
	LastAnswers time.Duration
}

// Pod says whose queries a server answers.
type Pod struct{ Namespace, Name, ServiceAccount string }

// Server answers one pod's queries. Its sockets live in the pod's network namespace.
type Server struct {
	config  Config
	pod     Pod
	network netx.Network
	servers []*dns.Server
	packets []*netx.Redirected // those of UDP
	done    sync.WaitGroup
	ctx     context.Context //nolint:containedctx // ends the exchanges under way some time after the server is closed
	cancel  context.CancelFunc

	forbidden sync.Once // it has been said that answers cannot be sent
}

// Start listens on the pod's loopback addresses, UDP and TCP. IPv6 is used when the pod has it. On return the sockets
// are open.
func Start(ctx context.Context, config Config, pod Pod, network netx.Network) (*Server, error) {
	s := &Server{config: config, pod: pod, network: network}
	s.ctx, s.cancel = context.WithCancel(context.WithoutCancel(ctx))
	if err := s.listen(ctx, "4", "127.0.0.1"); err != nil {
		s.Close()
		return nil, err
	}
	if config.Settings.IPv6 {
		// A pod without IPv6 has no ::1 to listen on, and no query comes that way.
		if err := s.listen(ctx, "6", "[::1]"); err != nil {
			config.Log.Debug("no DNS on IPv6 in this pod", "error", err)
		}
	}
	return s, nil
}

func (s *Server) listen(ctx context.Context, family, host string) error {
	// Without a packet filter queries keep the address that they were sent to, and want the answer from there.
	packets, err := netx.ListenRedirected(ctx, s.network, "udp"+family, host+":"+Port)
	if err != nil {
		return fmt.Errorf("listen for DNS: %w", err)
	}
	// sklookup must know before it redirects to here whether answers may leave from others' port; other redirections do without.
	if err := packets.CanAnswer(portAsked); errors.Is(err, os.ErrPermission) {
		s.unsent(err)
		if err := packets.Withdraw(); err != nil {
			packets.Close()
			return fmt.Errorf("listen for DNS: %w", err)
		}
	}
	streams, err := s.network.Listen(ctx, "tcp"+family, host+":"+Port)
	if err != nil {
		packets.Close()
		return fmt.Errorf("listen for DNS: %w", err)
	}
	// One whose place this server takes may close at any moment, of any version: what it had got and not read by then would be lost, and
	// resolvers ask again only after five seconds.
	if err := netx.Precede(s.network, packets); err != nil {
		s.config.Log.Warn("DNS queries may be lost when the proxy is replaced", "pod", s.pod.Namespace+"/"+s.pod.Name, "error", err)
	}
	s.packets = append(s.packets, packets)
	s.serve(&dns.Server{PacketConn: packets, Handler: s.handler("udp")})
	s.serve(&dns.Server{Listener: streams, Handler: s.handler("tcp"), ReadTimeout: 10 * time.Second})
	return nil
}

func (s *Server) serve(server *dns.Server) {
	started := make(chan struct{})
	server.NotifyStartedFunc = sync.OnceFunc(func() { close(started) })
	s.servers = append(s.servers, server)
	s.done.Go(func() {
		if err := server.ActivateAndServe(); err != nil && !errors.Is(err, net.ErrClosed) {
			s.config.Log.Warn("DNS server ended", "pod", s.pod.Namespace+"/"+s.pod.Name, "error", err)
		}
	})
	<-started
}

// Close takes no more queries, answers those that have come, and waits until all sockets are closed.
func (s *Server) Close() {
	defer s.cancel()
	defer time.AfterFunc(cmp.Or(s.config.LastAnswers, forwardTimeout), s.cancel).Stop()
	var leaving sync.WaitGroup
	for _, packets := range s.packets {
		leaving.Go(func() {
			if err := netx.Withdraw(s.ctx, packets); err != nil {
				s.config.Log.Debug("DNS queries may be lost", "pod", s.pod.Namespace+"/"+s.pod.Name, "error", err)
			}
		})
	}
	leaving.Wait()
	for _, server := range s.servers {
		_ = server.Shutdown()
	}
	s.done.Wait()
}

func (s *Server) handler(protocol string) dns.HandlerFunc {
	return func(w dns.ResponseWriter, query *dns.Msg) {
		response := s.answer(s.ctx, protocol, query)
		if protocol == "udp" {
			response.Truncate(int(udpSize(query)))
		}
		if err := w.WriteMsg(response); err != nil && s.ctx.Err() == nil {
			s.unsent(err)
		}
	}
}

// unsent says that an answer was not sent: to who is gone is nothing special, but where the kernel does not allow it, no name is resolved.
func (s *Server) unsent(err error) {
	pod := s.pod.Namespace + "/" + s.pod.Name
	if !errors.Is(err, os.ErrPermission) {
		s.config.Log.Debug("DNS answer not sent", "pod", pod, "error", err)
		return
	}
	s.forbidden.Do(func() {
		s.config.Log.Warn("no redirection by sklookup while DNS is captured: answers then leave from port 53, for which this process needs one of the capabilities NET_BIND_SERVICE and NET_RAW",
			"pod", pod, "error", err)
	})
}

// answer decides one query.
func (s *Server) answer(ctx context.Context, protocol string, query *dns.Msg) *dns.Msg {
	if query.Opcode != dns.OpcodeQuery {
		return rcode(query, dns.RcodeNotImplemented)
	}
	if len(query.Question) != 1 {
		return rcode(query, dns.RcodeFormatError)
	}
	question := query.Question[0]
	client := s.config.Identify(ctx)
	labels := []string{dns.TypeToString[question.Qtype], protocol, "unknown", "unknown"}
	if client != nil {
		labels[2], labels[3] = orUnknown(client.CanonicalName), orUnknown(client.CanonicalRevision)
	}
	s.config.Metrics.requests.WithLabelValues(labels...).Inc()
	if client == nil {
		return rcode(query, dns.RcodeServerFailure)
	}
	if question.Qclass == dns.ClassINET && (question.Qtype == dns.TypeA || question.Qtype == dns.TypeAAAA) {
		name := strings.ToLower(strings.TrimSuffix(question.Name, "."))
		asker := Client{Namespace: client.Namespace, Network: client.Network}
		if found := s.config.Settings.Resolve(s.config.Store.Load(), asker, name, question.Qtype == dns.TypeAAAA); found.Known {
			return local(query, found)
		}
	}
	return s.forward(ctx, protocol, query, labels)
}

// local builds the mesh's own answer. A host without an address of the family is an empty answer, never NXDOMAIN.
func local(query *dns.Msg, found Answer) *dns.Msg {
	response := new(dns.Msg).SetReply(query)
	response.Authoritative, response.RecursionAvailable = true, true
	question := query.Question[0]
	owner := question.Name
	if found.CNAME != "" {
		target := dns.Fqdn(found.CNAME)
		response.Answer = append(response.Answer, &dns.CNAME{
			Hdr: dns.RR_Header{Name: owner, Rrtype: dns.TypeCNAME, Class: dns.ClassINET, Ttl: answerTTL}, Target: target,
		})
		owner = target
	}
	addrs := found.Addrs
	rand.Shuffle(len(addrs), func(i, j int) { addrs[i], addrs[j] = addrs[j], addrs[i] })
	for _, ip := range addrs {
		header := dns.RR_Header{Name: owner, Rrtype: question.Qtype, Class: dns.ClassINET, Ttl: answerTTL}
		if question.Qtype == dns.TypeA {
			response.Answer = append(response.Answer, &dns.A{Hdr: header, A: ip.AsSlice()})
		} else {
			response.Answer = append(response.Answer, &dns.AAAA{Hdr: header, AAAA: ip.AsSlice()})
		}
	}
	return response
}

func (s *Server) forward(ctx context.Context, protocol string, query *dns.Msg, labels []string) *dns.Msg {
	m := s.config.Metrics
	m.upstreamRequests.WithLabelValues(labels...).Inc()
	begin := time.Now()
	response, err := s.config.Forwarder.Exchange(ctx, s.network, protocol, query)
	if err != nil {
		m.upstreamFailures.WithLabelValues(labels...).Inc()
		s.config.Log.Warn("DNS query not answered", "pod", s.pod.Namespace+"/"+s.pod.Name, "name", query.Question[0].Name, "error", err)
		return rcode(query, dns.RcodeServerFailure)
	}
	m.upstreamDuration.WithLabelValues(labels...).Observe(time.Since(begin).Seconds())
	response.Id, response.Authoritative = query.Id, false
	return response
}

func rcode(query *dns.Msg, code int) *dns.Msg {
	response := new(dns.Msg).SetRcode(query, code)
	response.RecursionAvailable = true
	return response
}

func orUnknown(s string) string {
	if s == "" {
		return "unknown"
	}
	return s
}

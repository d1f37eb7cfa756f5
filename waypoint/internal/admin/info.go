package admin

import (
	"crypto/x509"
	"fmt"
	"maps"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"time"

	adminv3 "github.com/envoyproxy/go-control-plane/envoy/admin/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// listeners answers /listeners as text or JSON.
func (s *Server) listeners(w http.ResponseWriter, r *http.Request) {
	statuses := &adminv3.Listeners{}
	for _, l := range s.Bootstrap.GetStaticResources().GetListeners() {
		statuses.ListenerStatuses = append(statuses.ListenerStatuses, &adminv3.ListenerStatus{Name: l.GetName(), LocalAddress: l.GetAddress()})
	}
	for _, l := range s.Engine.Listeners() {
		statuses.ListenerStatuses = append(statuses.ListenerStatuses, &adminv3.ListenerStatus{
			Name: l.Name, LocalAddress: &corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{
				Address: l.Address.Addr().String(), PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: uint32(l.Address.Port())},
			}}},
		})
	}
	all := s.Engine.Config().Listeners
	for _, name := range slices.Sorted(maps.Keys(all)) {
		if !all[name].Internal {
			continue
		}
		statuses.ListenerStatuses = append(statuses.ListenerStatuses, &adminv3.ListenerStatus{
			Name: name, LocalAddress: &corev3.Address{Address: &corev3.Address_EnvoyInternalAddress{EnvoyInternalAddress: &corev3.EnvoyInternalAddress{
				AddressNameSpecifier: &corev3.EnvoyInternalAddress_ServerListenerName{ServerListenerName: name},
			}}},
		})
	}
	if r.URL.Query().Get("format") == "json" {
		s.json(w, statuses)
		return
	}
	for _, l := range statuses.GetListenerStatuses() {
		fmt.Fprintf(w, "%s::%s\n", l.GetName(), addressText(l.GetLocalAddress()))
	}
}

// state is the proxy's, in Envoy's terms.
func (s *Server) state() adminv3.ServerInfo_State {
	switch {
	case s.Readiness.Draining():
		return adminv3.ServerInfo_DRAINING
	case !s.Snapshot().Started:
		return adminv3.ServerInfo_PRE_INITIALIZING
	case len(s.Readiness.Pending()) > 0:
		return adminv3.ServerInfo_INITIALIZING
	}
	return adminv3.ServerInfo_LIVE
}

func (s *Server) ready(w http.ResponseWriter, _ *http.Request) {
	state := s.state()
	if state != adminv3.ServerInfo_LIVE {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	fmt.Fprintln(w, state)
}

func (s *Server) serverInfo(w http.ResponseWriter, _ *http.Request) {
	up := durationpb.New(time.Since(s.Started).Truncate(time.Second))
	s.whole(w, &adminv3.ServerInfo{
		// revision/version/status/kind/TLS library, as Envoy's
		Version: strings.Join([]string{s.Build.Revision, s.Build.Version, s.Build.Status, "RELEASE", s.Build.Go}, "/"),
		State:   s.state(), UptimeCurrentEpoch: up, UptimeAllEpochs: up, HotRestartVersion: "disabled",
		CommandLineOptions: &adminv3.CommandLineOptions{
			Concurrency: uint32(runtime.GOMAXPROCS(0)), ServiceNode: s.Bootstrap.GetNode().GetId(), ServiceCluster: s.Bootstrap.GetNode().GetCluster(),
			LogLevel: s.Levels.String(), DisableHotRestart: true,
		},
		Node: s.Bootstrap.GetNode(),
	})
}

// certificates answers /certs. There are as many entries as identities: one.
func (s *Server) certificates(w http.ResponseWriter, _ *http.Request) {
	out := &adminv3.Certificates{}
	for _, state := range s.Certificates() {
		entry := &adminv3.Certificate{}
		if state.Workload != nil {
			for _, root := range state.Workload.RootCerts {
				entry.CaCert = append(entry.CaCert, details(root))
			}
			for _, der := range state.Workload.Certificate.Certificate {
				if parsed, err := x509.ParseCertificate(der); err == nil {
					entry.CertChain = append(entry.CertChain, details(parsed))
				}
			}
		}
		out.Certificates = append(out.Certificates, entry)
	}
	s.whole(w, out)
}

func details(c *x509.Certificate) *adminv3.CertificateDetails {
	out := &adminv3.CertificateDetails{
		Path: "<inline>", SerialNumber: c.SerialNumber.Text(16), ValidFrom: timestamppb.New(c.NotBefore), ExpirationTime: timestamppb.New(c.NotAfter),
		DaysUntilExpiration: uint64(max(time.Until(c.NotAfter), 0) / (24 * time.Hour)),
	}
	for _, uri := range c.URIs {
		out.SubjectAltNames = append(out.SubjectAltNames, &adminv3.SubjectAlternateName{Name: &adminv3.SubjectAlternateName_Uri{Uri: uri.String()}})
	}
	return out
}

func (s *Server) memory(w http.ResponseWriter, _ *http.Request) {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	s.whole(w, &adminv3.Memory{
		Allocated: m.HeapAlloc, HeapSize: m.HeapSys, PageheapUnmapped: m.HeapReleased, PageheapFree: m.HeapIdle - m.HeapReleased, TotalPhysicalBytes: m.Sys - m.HeapReleased,
	})
}

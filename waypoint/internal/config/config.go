// Package config reads the proxy's configuration from flags, environment and the files of its pod, once. It is the only place
// that knows the names of variables.
package config

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	meshconfig "istio.io/api/mesh/v1alpha1"

	"github.com/isthmus-mesh/isthmus/waypoint/app"
)

// Sources of the configuration.
type Sources struct {
	// Environ has lines "NAME=value".
	Environ []string
	// ReadFile reads a file of the pod.
	ReadFile func(path string) ([]byte, error)
	// Interfaces lists the host's own addresses, asked when INSTANCE_IP is not set.
	Interfaces func() ([]net.Addr, error)
}

// Process are the sources of the running process.
func Process() Sources {
	return Sources{Environ: os.Environ(), ReadFile: os.ReadFile, Interfaces: net.InterfaceAddrs}
}

// Default is the configuration of an empty environment.
func Default() app.Config {
	return app.Config{
		ClusterID: "Kubernetes", TrustDomain: "cluster.local", ServiceAccount: "default",
		Labels: map[string]string{}, Metadata: map[string]any{},
		TokenFile: "/var/run/secrets/tokens/istio-token", SecretTTL: 24 * time.Hour,
		Drain:             app.Drain{Minimum: 5 * time.Second},
		EngineMetricsAddr: ":15090", ReadinessAddr: ":15021",
		LogLevel: "info",
	}
}

// reading is the configuration while it is being read.
type reading struct {
	app.Config
	values      map[string]string
	proxy       *meshconfig.ProxyConfig
	caAddress   string
	rootCert    string // by PILOT_CERT_PROVIDER
	labelsFile  string
	problems    []error
	instanceIPs []netip.Addr
}

// Load reads the command line, without the command itself, and the sources. All problems are reported together, each with the
// name of what it is about.
func Load(kind app.Kind, args []string, from Sources) (app.Config, error) {
	r := &reading{
		Config: Default(), values: map[string]string{},
		rootCert: "/var/run/secrets/istio/root-cert.pem", labelsFile: "/etc/istio/pod/labels",
	}
	r.Kind = kind
	r.environment(from.Environ)
	flags, err := parseFlags(args)
	if err != nil {
		return app.Config{}, err
	}
	r.flags(flags)
	r.place(from)
	r.upstreams()
	r.ports()
	if err := errors.Join(r.problems...); err != nil {
		return app.Config{}, err
	}
	r.Environment = r.values
	return r.Config, nil
}

func (r *reading) problem(format string, args ...any) {
	r.problems = append(r.problems, fmt.Errorf(format, args...))
}

// environment applies the variables. Those that PROXY_CONFIG brings along in proxyMetadata count where the process has none of
// that name.
func (r *reading) environment(environ []string) {
	for _, line := range environ {
		name, value, _ := strings.Cut(line, "=")
		r.values[name] = value
	}
	proxy, err := parseProxyConfig(r.values["PROXY_CONFIG"])
	if err != nil {
		r.problem("environment variable PROXY_CONFIG: %w", err)
		proxy, _ = parseProxyConfig("") // the defaults, so that the other problems are found too
	}
	r.proxy, r.ProxyConfig = proxy, proxy
	r.Warnings = append(r.Warnings, ineffective(proxy)...)
	for name, value := range proxy.GetProxyMetadata() {
		if _, ok := r.values[name]; !ok {
			r.values[name] = value
		}
	}
	r.Drain.Termination = proxy.GetTerminationDrainDuration().AsDuration()
	r.Drain.Listener = proxy.GetDrainDuration().AsDuration()
	r.Threads = int(proxy.GetConcurrency().GetValue())
	names := make([]string, 0, len(r.values))
	for name := range r.values {
		names = append(names, name)
	}
	slices.Sort(names)
	settings := table()
	for _, name := range names {
		value := r.values[name]
		if apply, ok := settings[name]; ok && value != "" {
			if err := apply(r, value); err != nil {
				r.problem("environment variable %s=%q: %w", name, value, err)
			}
		}
		r.metadata(name, value)
	}
}

// metadata reads the families of variables whose names are open.
func (r *reading) metadata(name, value string) {
	if key, ok := strings.CutPrefix(name, "ISTIO_METAJSON_"); ok {
		var decoded any
		if err := json.Unmarshal([]byte(value), &decoded); err != nil {
			r.problem("environment variable %s: not JSON: %w", name, err)
			return
		}
		r.Metadata[key] = decoded
	} else if key, ok := strings.CutPrefix(name, "ISTIO_META_"); ok && value != "" {
		r.Metadata[key] = value
	}
	for prefix, upstream := range map[string]*app.Upstream{"XDS_HEADER_": &r.XDS, "CA_HEADER_": &r.CA} {
		if key, ok := strings.CutPrefix(name, prefix); ok {
			if upstream.Headers == nil {
				upstream.Headers = map[string]string{}
			}
			upstream.Headers[strings.ToLower(strings.ReplaceAll(key, "_", "-"))] = value
		}
	}
}

func (r *reading) flags(f flags) {
	r.ServiceCluster = cmp.Or(f.serviceCluster, r.proxy.GetServiceCluster())
	r.Domain = cmp.Or(f.domain, r.PodNamespace+".svc.cluster.local")
	if f.concurrency > 0 {
		r.Threads = f.concurrency
	}
	if f.logJSON {
		r.LogJSON = true
	}
	levels, base, err := outputLevels(f.outputLevel)
	if err != nil {
		r.problem("--log_output_level=%q: %w", f.outputLevel, err)
	} else if f.outputLevel != "" {
		r.LogLevel, r.Level = levels, base
	}
	if f.tokenFile != "" {
		r.TokenFile = f.tokenFile
	}
	switch f.engine {
	case "isthmus":
	case "envoy":
		r.Config.Envoy = &app.Envoy{
			Binary: f.envoy, Dir: f.configDir, LogLevel: f.proxyLogLevel, ComponentLogLevel: f.componentLogLevel, Concurrency: r.Threads,
		}
	default:
		r.problem("--engine=%q: use isthmus or envoy", f.engine)
	}
}

// place reads who and where the proxy is.
func (r *reading) place(from Sources) {
	if r.PodName == "" || r.PodNamespace == "" {
		r.problem("the proxy's own pod is unknown: set POD_NAME and POD_NAMESPACE (in a manifest by fieldRef metadata.name and metadata.namespace)")
	}
	if id, ok := r.Metadata["CLUSTER_ID"].(string); ok {
		r.ClusterID = id
	}
	if name, ok := r.Metadata["NODE_NAME"].(string); ok && r.NodeName == "" {
		r.NodeName = name
	}
	text, err := from.ReadFile(r.labelsFile)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if _, given := r.Metadata["LABELS"]; !given {
			r.Warnings = append(r.Warnings, fmt.Sprintf("no pod labels: %s does not exist, and the control plane finds the proxy's Gateway by them (mount it by downwardAPI, or set ISTIO_METAJSON_LABELS)", r.labelsFile))
		}
	case err != nil:
		r.problem("pod labels: %w", err)
	default:
		if r.Labels, err = ParseLabels(string(text)); err != nil {
			r.problem("pod labels in %s: %w", r.labelsFile, err)
		}
	}
	if more, ok := r.Metadata["LABELS"].(map[string]any); ok {
		for key, value := range more {
			if text, ok := value.(string); ok && r.Labels != nil {
				r.Labels[key] = text
			}
		}
		delete(r.Metadata, "LABELS")
	}
	// The given one is the first; by the others the control plane knows the proxy's families of addresses.
	r.InstanceIPs = r.instanceIPs
	for _, ip := range globalAddresses(from.Interfaces) {
		if !slices.Contains(r.InstanceIPs, ip) {
			r.InstanceIPs = append(r.InstanceIPs, ip)
		}
	}
	if len(r.InstanceIPs) == 0 {
		r.problem("the proxy's address is unknown: set INSTANCE_IP (in a manifest by fieldRef status.podIP)")
	}
}

// globalAddresses are the host's unicast addresses that others can reach, IPv4 first.
func globalAddresses(list func() ([]net.Addr, error)) []netip.Addr {
	found, err := list()
	if err != nil {
		return nil
	}
	var out []netip.Addr
	for _, a := range found {
		prefix, err := netip.ParsePrefix(a.String())
		if err == nil && prefix.Addr().IsGlobalUnicast() {
			out = append(out, prefix.Addr().Unmap())
		}
	}
	slices.SortStableFunc(out, func(a, b netip.Addr) int { return cmp.Compare(a.BitLen(), b.BitLen()) })
	return out
}

// upstreams finds the control plane. CA_ADDR is where pilot is, unless given.
func (r *reading) upstreams() {
	scheme := "https://"
	if r.proxy.GetControlPlaneAuthPolicy() == meshconfig.AuthenticationPolicy_NONE && r.proxyPlaintext() {
		scheme = "http://"
	}
	for _, u := range []struct {
		upstream      *app.Upstream
		name, address string
	}{
		{&r.XDS, "PROXY_CONFIG: discoveryAddress", r.proxy.GetDiscoveryAddress()},
		{&r.CA, "CA_ADDR", cmp.Or(r.caAddress, r.proxy.GetDiscoveryAddress())},
	} {
		address, err := endpoint(scheme, u.address)
		if err != nil {
			r.problem("%s=%q: %w", u.name, u.address, err)
		}
		u.upstream.URL = address
		u.upstream.RootCertFile = cmp.Or(u.upstream.RootCertFile, r.rootCert)
	}
}

// proxyPlaintext is whether the discovery address is the port that pilot serves without TLS: NONE is the zero value of the
// policy, so that alone says nothing.
func (r *reading) proxyPlaintext() bool {
	return strings.HasSuffix(r.proxy.GetDiscoveryAddress(), ":15010")
}

func (r *reading) ports() {
	admin, status := int(r.proxy.GetProxyAdminPort()), int(r.proxy.GetStatusPort())
	r.AdminAddr = cmp.Or(r.AdminAddr, net.JoinHostPort("127.0.0.1", strconv.Itoa(admin)))
	r.MetricsAddr = cmp.Or(r.MetricsAddr, net.JoinHostPort("", strconv.Itoa(status)))
}

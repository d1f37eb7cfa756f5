// Package config reads the node proxy's configuration from the environment, once. It is the only place that knows the
// names of variables.
package config

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"net/url"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/isthmus-mesh/isthmus/pkg/hbone"
	"github.com/isthmus-mesh/isthmus/pkg/telemetry"
	"github.com/isthmus-mesh/isthmus/ztunnel/app"
)

// Default is the configuration of an empty environment.
func Default() app.Config {
	upstream := app.Upstream{URL: "https://istiod.istio-system.svc:15012", RootCertFile: "/var/run/secrets/istio/root-cert.pem"}
	return app.Config{
		Enabled: true, ClusterID: "Kubernetes", ClusterDomain: "cluster.local", TrustDomain: "cluster.local",
		InstanceIP: netip.AddrFrom4([4]byte{1, 1, 1, 1}), Metadata: map[string]any{}, XDS: upstream, CA: upstream,
		TokenFile: "/var/run/secrets/tokens/istio-token", SecretTTL: 24 * time.Hour,
		ZDSSocket: "/var/run/ztunnel/ztunnel.sock", PacketMark: 0x539, IPv6: true,
		KeepaliveEnabled: true, KeepaliveTime: 180 * time.Second, KeepaliveInterval: 180 * time.Second, KeepaliveRetries: 9,
		PoolMaxStreams: 100, PoolIdleTimeout: 5 * time.Minute, ResponseBaggage: true, DrainTimeout: 5 * time.Second,
		CertificatePatience: 3 * time.Second, Transport: hbone.Records, Handover: true,
		AdminAddr: "localhost:15000", MetricsAddr: "[::]:15020", ReadinessAddr: "[::]:15021", LogLevel: "info",
		Threads: min(max(2, runtime.NumCPU()/4), runtime.GOMAXPROCS(0)),
	}
}

// setting reads the value of one variable into the configuration.
type setting func(c *app.Config, value string) error

// table maps every variable to its meaning. Variables of the field that name something this proxy decides by itself are
// accepted and checked, so that a chart written for the field works; they are marked by fixed or unsupported.
func table() map[string]setting {
	return map[string]setting{
		"ENABLE_PROXY":                    boolean(func(c *app.Config) *bool { return &c.Enabled }),
		"ISTIO_META_DNS_CAPTURE":          boolean(func(c *app.Config) *bool { return &c.DNSProxy }),
		"TRUST_DOMAIN":                    text(func(c *app.Config) *string { return &c.TrustDomain }),
		"NETWORK":                         text(func(c *app.Config) *string { return &c.Network }),
		"NODE_NAME":                       text(func(c *app.Config) *string { return &c.NodeName }),
		"CLUSTER_ID":                      text(func(c *app.Config) *string { return &c.ClusterID }),
		"CLUSTER_DOMAIN":                  text(func(c *app.Config) *string { return &c.ClusterDomain }),
		"POD_NAME":                        text(func(c *app.Config) *string { return &c.PodName }),
		"POD_NAMESPACE":                   text(func(c *app.Config) *string { return &c.PodNamespace }),
		"SERVICE_ACCOUNT":                 text(func(c *app.Config) *string { return &c.ServiceAccount }),
		"INSTANCE_IP":                     address(func(c *app.Config) *netip.Addr { return &c.InstanceIP }),
		"XDS_ADDRESS":                     endpoint(func(c *app.Config) *string { return &c.XDS.URL }),
		"CA_ADDRESS":                      endpoint(func(c *app.Config) *string { return &c.CA.URL }),
		"XDS_ROOT_CA":                     text(func(c *app.Config) *string { return &c.XDS.RootCertFile }),
		"CA_ROOT_CA":                      text(func(c *app.Config) *string { return &c.CA.RootCertFile }),
		"ALT_XDS_HOSTNAME":                text(func(c *app.Config) *string { return &c.XDS.AltHostname }),
		"ALT_CA_HOSTNAME":                 text(func(c *app.Config) *string { return &c.CA.AltHostname }),
		"AUTH_TOKEN":                      text(func(c *app.Config) *string { return &c.TokenFile }),
		"LOCAL_XDS_PATH":                  fixed(""),
		"LOCAL_XDS":                       fixed(""),
		"XDS_ON_DEMAND":                   boolean(func(c *app.Config) *bool { return &c.OnDemand }),
		"FAKE_CA":                         fixed("false"),
		"SECRET_TTL":                      duration(func(c *app.Config) *time.Duration { return &c.SecretTTL }),
		"CRL_PATH":                        text(func(c *app.Config) *string { return &c.CRLFile }),
		"INPOD_UDS":                       text(func(c *app.Config) *string { return &c.ZDSSocket }),
		"PACKET_MARK":                     mark,
		"IPV6_ENABLED":                    boolean(func(c *app.Config) *bool { return &c.IPv6 }),
		"ENABLE_ORIG_SRC":                 boolean(func(c *app.Config) *bool { return &c.RequireTransparent }),
		"KEEPALIVE_ENABLED":               boolean(func(c *app.Config) *bool { return &c.KeepaliveEnabled }),
		"KEEPALIVE_TIME":                  duration(func(c *app.Config) *time.Duration { return &c.KeepaliveTime }),
		"KEEPALIVE_INTERVAL":              duration(func(c *app.Config) *time.Duration { return &c.KeepaliveInterval }),
		"KEEPALIVE_RETRIES":               number(1, 127, func(c *app.Config) *int { return &c.KeepaliveRetries }),
		"PREFERED_SERVICE_NAMESPACE":      text(func(c *app.Config) *string { return &c.PreferredServiceNamespace }), //nolint:misspell // the field's own spelling
		"PREFERRED_SERVICE_NAMESPACE":     text(func(c *app.Config) *string { return &c.PreferredServiceNamespace }),
		"POOL_MAX_STREAMS_PER_CONNECTION": number(1, 1<<20, func(c *app.Config) *int { return &c.PoolMaxStreams }),
		"POOL_UNUSED_RELEASE_TIMEOUT":     duration(func(c *app.Config) *time.Duration { return &c.PoolIdleTimeout }),
		"POOL_MAX_BUSY_CONNECTIONS":       number(1, 64, func(c *app.Config) *int { return &c.PoolBusyConns }),
		"ZTUNNEL_MEMORY_BUDGET":           quantity(func(c *app.Config) *int64 { return &c.MemoryBudget }),
		"ZTUNNEL_WORKLOAD_CONNECTIONS":    number(0, 1<<30, func(c *app.Config) *int { return &c.MaxConnections }),
		"HBONE_TRANSPORT":                 transport,
		"ENABLE_HANDOVER":                 boolean(func(c *app.Config) *bool { return &c.Handover }),
		"ENABLE_RESPONSE_BAGGAGE":         boolean(func(c *app.Config) *bool { return &c.ResponseBaggage }),
		"AUTHZ_POLICY_INFO_LOGGING":       boolean(func(c *app.Config) *bool { return &c.LogDecisions }),
		"LOG_FORMAT":                      oneOf([]string{"json", "plain"}, func(c *app.Config, v string) { c.LogJSON = v == "json" }),
		"LOG_LEVEL":                       level,
		"RUST_LOG":                        level, // what charts of the field set; LOG_LEVEL counts before it
		"ZTUNNEL_WORKER_THREADS":          threads,
		"CONNECTION_TERMINATION_DEADLINE": duration(func(c *app.Config) *time.Duration { return &c.DrainTimeout }),
		"TERMINATION_GRACE_PERIOD_SECONDS": func(*app.Config, string) error {
			return nil // read after the others: see drainTimeout
		},
		"PROXY_MODE":             oneOf([]string{"shared"}, func(*app.Config, string) {}),
		"INPOD_ENABLED":          fixed("true"),
		"INPOD_PORT_REUSE":       fixed("true"),
		"TLS12_ENABLED":          fixed("false"),
		"UNSTABLE_ENABLE_SOCKS5": fixed("false"),
		"LOCALHOST_APP_TUNNEL":   fixed("true"),
		"COMPLIANCE_POLICY":      fixed(""),
		"PROXY_CONFIG":           fixed(""),
		"USER_TIMEOUT_ENABLED":   fixed("true"),
	}
}

// Load reads the environment, given as "NAME=value" lines. All problems are reported together.
func Load(environ []string) (app.Config, error) {
	c := Default()
	settings := table()
	var problems []error
	values := map[string]string{}
	for _, line := range environ {
		name, value, _ := strings.Cut(line, "=")
		values[name] = value
	}
	names := make([]string, 0, len(values))
	for name := range values {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		value := values[name]
		if name == "RUST_LOG" && values["LOG_LEVEL"] != "" {
			continue
		}
		if apply, ok := settings[name]; ok && value != "" {
			if err := apply(&c, value); err != nil {
				problems = append(problems, fmt.Errorf("environment variable %s=%q: %w", name, value, err))
			}
		}
		if err := prefixed(&c, name, value); err != nil {
			problems = append(problems, fmt.Errorf("environment variable %s: %w", name, err))
		}
	}
	if err := drainTimeout(&c, values); err != nil {
		problems = append(problems, err)
	}
	if c.OnDemand && c.DNSProxy {
		problems = append(problems, errors.New("XDS_ON_DEMAND=true with ISTIO_META_DNS_CAPTURE=true: the DNS proxy needs all services; disable one"))
	}
	return c, errors.Join(problems...)
}

// prefixed reads the families of variables whose names are open.
func prefixed(c *app.Config, name, value string) error {
	if key, ok := strings.CutPrefix(name, "ISTIO_METAJSON_"); ok {
		var decoded any
		if err := json.Unmarshal([]byte(value), &decoded); err != nil {
			return fmt.Errorf("not JSON: %w", err)
		}
		c.Metadata[key] = decoded
	} else if key, ok := strings.CutPrefix(name, "ISTIO_META_"); ok {
		c.Metadata[key] = value
	}
	for prefix, upstream := range map[string]*app.Upstream{"XDS_HEADER_": &c.XDS, "CA_HEADER_": &c.CA} {
		if key, ok := strings.CutPrefix(name, prefix); ok {
			if upstream.Headers == nil {
				upstream.Headers = map[string]string{}
			}
			upstream.Headers[strings.ToLower(strings.ReplaceAll(key, "_", "-"))] = value
		}
	}
	return nil
}

// drainTimeout leaves a margin of the pod's grace period, unless a deadline is given.
func drainTimeout(c *app.Config, values map[string]string) error {
	grace := values["TERMINATION_GRACE_PERIOD_SECONDS"]
	if grace == "" || values["CONNECTION_TERMINATION_DEADLINE"] != "" {
		return nil
	}
	seconds, err := strconv.Atoi(grace)
	if err != nil || seconds < 1 {
		return fmt.Errorf("environment variable TERMINATION_GRACE_PERIOD_SECONDS=%q: want whole seconds", grace)
	}
	margin := 5
	if seconds <= 10 {
		margin = 1
	}
	c.DrainTimeout = time.Duration(seconds-margin) * time.Second
	return nil
}

func text(field func(*app.Config) *string) setting {
	return func(c *app.Config, v string) error {
		*field(c) = v
		return nil
	}
}

func boolean(field func(*app.Config) *bool) setting {
	return func(c *app.Config, v string) error {
		parsed, err := strconv.ParseBool(v)
		if err != nil {
			return errors.New("want true or false")
		}
		*field(c) = parsed
		return nil
	}
}

func number(least, most int, field func(*app.Config) *int) setting {
	return func(c *app.Config, v string) error {
		parsed, err := strconv.Atoi(v)
		if err != nil || parsed < least || parsed > most {
			return fmt.Errorf("want a whole number from %d to %d", least, most)
		}
		*field(c) = parsed
		return nil
	}
}

// duration takes Go's form, "30s", and bare seconds.
func duration(field func(*app.Config) *time.Duration) setting {
	return func(c *app.Config, v string) error {
		parsed, err := time.ParseDuration(v)
		if seconds, convErr := strconv.ParseUint(v, 10, 31); convErr == nil {
			parsed, err = time.Duration(seconds)*time.Second, nil
		}
		if err != nil || parsed < 0 {
			return errors.New(`want a duration such as "30s"`)
		}
		*field(c) = parsed
		return nil
	}
}

// transport is a setting of our own: who makes the TLS records of tunnels.
func transport(c *app.Config, v string) error { return c.Transport.UnmarshalText([]byte(v)) }

func address(field func(*app.Config) *netip.Addr) setting {
	return func(c *app.Config, v string) error {
		parsed, err := netip.ParseAddr(v)
		if err != nil {
			return errors.New("want an IP address")
		}
		*field(c) = parsed
		return nil
	}
}

func endpoint(field func(*app.Config) *string) setting {
	return func(c *app.Config, v string) error {
		if !strings.Contains(v, "://") {
			v = "https://" + v
		}
		parsed, err := url.Parse(v)
		if err != nil || parsed.Host == "" || parsed.Scheme != "https" && parsed.Scheme != "http" {
			return errors.New("want https://host:port")
		}
		*field(c) = v
		return nil
	}
}

func oneOf(allowed []string, set func(*app.Config, string)) setting {
	return func(c *app.Config, v string) error {
		if !slices.Contains(allowed, strings.ToLower(v)) {
			return fmt.Errorf("supported: %s", strings.Join(allowed, ", "))
		}
		set(c, strings.ToLower(v))
		return nil
	}
}

// fixed accepts only what the proxy does anyway.
func fixed(value string) setting {
	return func(_ *app.Config, v string) error {
		if !strings.EqualFold(v, value) {
			return fmt.Errorf("not supported; only %q", value)
		}
		return nil
	}
}

func mark(c *app.Config, v string) error {
	parsed, err := strconv.ParseUint(v, 0, 32)
	if err != nil || parsed == 0 {
		return errors.New("want a non-zero 32-bit number, as 1337 or 0x539")
	}
	c.PacketMark = uint32(parsed)
	return nil
}

// level reads a base and exceptions by scope, in any order: "info,access=debug". Scopes may bear the names that modules have in
// the field, "ztunnel::proxy::inbound".
func level(c *app.Config, v string) error {
	base, parts := slog.LevelInfo, []string{}
	for part := range strings.SplitSeq(v, ",") {
		scope, name := "", strings.TrimSpace(part)
		if i := strings.LastIndexAny(name, "=:"); i >= 0 {
			scope, name = strings.TrimRight(name[:i], ":"), name[i+1:]
		}
		if scope == "ztunnel" {
			scope = ""
		}
		scope, _, _ = strings.Cut(strings.TrimPrefix(scope, "ztunnel::"), "::")
		parsed, err := telemetry.ParseLevel(name)
		if err != nil {
			return err
		}
		if scope == "" {
			base = parsed
			parts = append(parts, name)
			continue
		}
		parts = append(parts, scope+"="+name)
	}
	c.LogLevel, c.Level = strings.Join(parts, ","), base
	return nil
}

// threads takes a number, or a percentage of the processors that this process may use.
func threads(c *app.Config, v string) error {
	if share, ok := strings.CutSuffix(v, "%"); ok {
		percent, err := strconv.ParseUint(share, 10, 16)
		if err != nil || percent == 0 {
			return errors.New("want a percentage such as 50%")
		}
		c.Threads = max(1, (runtime.GOMAXPROCS(0)*int(percent)+99)/100)
		return nil
	}
	return number(1, 1024, func(c *app.Config) *int { return &c.Threads })(c, v)
}

package config

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/isthmus-mesh/isthmus/pkg/telemetry"
)

// setting reads the value of one variable into the configuration.
type setting func(r *reading, value string) error

// table maps every variable to its meaning. Those that name something that this proxy decides by itself are accepted and
// checked, so that a chart written for the field works; they are marked by fixed.
func table() map[string]setting {
	return map[string]setting{
		"POD_NAME":                           text(func(r *reading) *string { return &r.PodName }),
		"POD_NAMESPACE":                      text(func(r *reading) *string { return &r.PodNamespace }),
		"SERVICE_ACCOUNT":                    text(func(r *reading) *string { return &r.ServiceAccount }),
		"NODE_NAME":                          text(func(r *reading) *string { return &r.NodeName }),
		"INSTANCE_IP":                        addresses,
		"TRUST_DOMAIN":                       text(func(r *reading) *string { return &r.TrustDomain }),
		"CA_ADDR":                            text(func(r *reading) *string { return &r.caAddress }),
		"PILOT_CERT_PROVIDER":                certProvider,
		"XDS_ROOT_CA":                        text(func(r *reading) *string { return &r.XDS.RootCertFile }),
		"CA_ROOT_CA":                         text(func(r *reading) *string { return &r.CA.RootCertFile }),
		"AUTH_TOKEN":                         text(func(r *reading) *string { return &r.TokenFile }),
		"POD_LABELS_FILE":                    text(func(r *reading) *string { return &r.labelsFile }),
		"SECRET_TTL":                         duration(func(r *reading) *time.Duration { return &r.SecretTTL }),
		"TERMINATION_DRAIN_DURATION_SECONDS": seconds(func(r *reading) *time.Duration { return &r.Drain.Termination }),
		"TERMINATION_GRACE_PERIOD_SECONDS":   seconds(func(r *reading) *time.Duration { return &r.Drain.Grace }),
		"MINIMUM_DRAIN_DURATION":             duration(func(r *reading) *time.Duration { return &r.Drain.Minimum }),
		"EXIT_ON_ZERO_ACTIVE_CONNECTIONS":    boolean(func(r *reading) *bool { return &r.Drain.ExitOnZero }),
		"ENVOY_STATUS_PORT":                  port(func(r *reading) *string { return &r.ReadinessAddr }),
		"ENVOY_PROMETHEUS_PORT":              port(func(r *reading) *string { return &r.EngineMetricsAddr }),
		"ISTIO_CPU_LIMIT":                    number(func(r *reading) *int { return &r.Threads }),
		"JWT_POLICY":                         fixed("third-party-jwt"),
		"ISTIO_DELTA_XDS":                    fixed("true"),
		"FILE_MOUNTED_CERTS":                 fixed("false"),
		"CREDENTIAL_FETCHER_TYPE":            fixed("JWT"),
		"PROV_CERT":                          fixed(""),
		"OUTPUT_CERTS":                       fixed(""),
		"ISTIO_BOOTSTRAP_OVERRIDE":           fixed(""),
	}
}

func text(field func(*reading) *string) setting {
	return func(r *reading, v string) error {
		*field(r) = v
		return nil
	}
}

func boolean(field func(*reading) *bool) setting {
	return func(r *reading, v string) error {
		parsed, err := strconv.ParseBool(v)
		if err != nil {
			return errors.New("want true or false")
		}
		*field(r) = parsed
		return nil
	}
}

func number(field func(*reading) *int) setting {
	return func(r *reading, v string) error {
		parsed, err := strconv.ParseUint(v, 10, 15)
		if err != nil {
			return errors.New("want a whole number")
		}
		*field(r) = int(parsed)
		return nil
	}
}

func duration(field func(*reading) *time.Duration) setting {
	return func(r *reading, v string) error {
		parsed, err := time.ParseDuration(v)
		if err != nil || parsed < 0 {
			return errors.New(`want a duration such as "30s"`)
		}
		*field(r) = parsed
		return nil
	}
}

func seconds(field func(*reading) *time.Duration) setting {
	return func(r *reading, v string) error {
		parsed, err := strconv.ParseUint(v, 10, 31)
		if err != nil {
			return errors.New("want whole seconds")
		}
		*field(r) = time.Duration(parsed) * time.Second
		return nil
	}
}

// port makes an address on all of the pod's addresses.
func port(field func(*reading) *string) setting {
	return func(r *reading, v string) error {
		parsed, err := strconv.ParseUint(v, 10, 16)
		if err != nil {
			return errors.New("want a port from 0 to 65535")
		}
		*field(r) = net.JoinHostPort("", strconv.FormatUint(parsed, 10))
		return nil
	}
}

func addresses(r *reading, v string) error {
	for part := range strings.SplitSeq(v, ",") {
		parsed, err := netip.ParseAddr(strings.TrimSpace(part))
		if err != nil {
			return errors.New("want an IP address, or several with commas")
		}
		r.instanceIPs = append(r.instanceIPs, parsed)
	}
	return nil
}

// certProvider says whose certificate the control plane shows.
func certProvider(r *reading, v string) error {
	known := map[string]string{
		"istiod":     "/var/run/secrets/istio/root-cert.pem",
		"kubernetes": "/var/run/secrets/kubernetes.io/serviceaccount/ca.crt",
		"custom":     "/etc/certs/root-cert.pem",
	}
	path, ok := known[v]
	if !ok {
		return errors.New("supported: istiod, kubernetes, custom")
	}
	r.rootCert = path
	return nil
}

// fixed accepts only what the proxy does anyway.
func fixed(value string) setting {
	return func(_ *reading, v string) error {
		if !strings.EqualFold(v, value) {
			return fmt.Errorf("not supported; only %q", value)
		}
		return nil
	}
}

// endpoint completes an address of the control plane.
func endpoint(scheme, address string) (string, error) {
	if !strings.Contains(address, "://") {
		address = scheme + address
	}
	parsed, err := url.Parse(address)
	if err != nil || parsed.Hostname() == "" || parsed.Port() == "" || !slices.Contains([]string{"http", "https"}, parsed.Scheme) {
		return "", errors.New("want host:port")
	}
	return address, nil
}

// outputLevels translates --log_output_level, "default:info,xds:debug", into the form of pkg/telemetry.
func outputLevels(spec string) (levels string, base slog.Level, err error) {
	base = slog.LevelInfo
	var parts []string
	for part := range strings.SplitSeq(spec, ",") {
		if part = strings.TrimSpace(part); part == "" {
			continue
		}
		scope, name, scoped := strings.Cut(part, ":")
		if !scoped {
			scope, name = "default", part
		}
		if name == "fatal" {
			name = "error"
		}
		level, err := telemetry.ParseLevel(name)
		if err != nil {
			return "", 0, err
		}
		if scope == "default" || scope == "all" {
			base = level
			parts = append(parts, name)
			continue
		}
		parts = append(parts, scope+"="+name)
	}
	return strings.Join(parts, ","), base, nil
}

package config_test

import (
	"errors"
	"io/fs"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/isthmus-mesh/isthmus/waypoint/app"
	"github.com/isthmus-mesh/isthmus/waypoint/internal/config"
)

// pod is a pod's environment and files.
func pod(files map[string]string, environ ...string) config.Sources {
	return config.Sources{
		Environ: append([]string{"POD_NAME=w-1", "POD_NAMESPACE=default", "INSTANCE_IP=10.0.0.9", "HOME=/root"}, environ...),
		ReadFile: func(path string) ([]byte, error) {
			if text, ok := files[path]; ok {
				return []byte(text), nil
			}
			return nil, fs.ErrNotExist
		},
		Interfaces: func() ([]net.Addr, error) {
			_, loop, _ := net.ParseCIDR("127.0.0.1/8")
			six := &net.IPNet{IP: net.ParseIP("fd00::7"), Mask: net.CIDRMask(64, 128)}
			four := &net.IPNet{IP: net.ParseIP("10.1.2.3"), Mask: net.CIDRMask(24, 32)}
			return []net.Addr{loop, six, four}, nil
		},
	}
}

// What Istio's charts pass, they may pass here.
func TestLoadTakesWhatChartsPass(t *testing.T) {
	c, err := config.Load(app.Waypoint, []string{
		"--domain", "default.svc.cluster.local", "--serviceCluster", "waypoint.default", "--proxyLogLevel", "warning",
		"--proxyComponentLogLevel", "misc:error", "--log_output_level", "default:warn,xds:debug",
	}, pod(map[string]string{"/etc/istio/pod/labels": "a=\"b\"\ngateway.networking.k8s.io/gateway-name=\"waypoint\"\n"},
		"ISTIO_META_CLUSTER_ID=c1", "ISTIO_META_NODE_NAME=n1", "SERVICE_ACCOUNT=waypoint", "PILOT_CERT_PROVIDER=istiod",
		"CA_ADDR=istiod.istio-system.svc:15012", "ISTIO_CPU_LIMIT=2", "JWT_POLICY=third-party-jwt", "TRUST_DOMAIN=td",
		`PROXY_CONFIG={"discoveryAddress":"pilot.x.svc:15012","terminationDrainDuration":"7s","image":{},"proxyMetadata":{"SECRET_TTL":"1h","ISTIO_META_X":"y"}}`,
		`ISTIO_METAJSON_LABELS={"c":"d"}`,
	))
	if err != nil {
		t.Fatal(err)
	}
	if c.ServiceCluster != "waypoint.default" || c.Domain != "default.svc.cluster.local" || c.ClusterID != "c1" || c.NodeName != "n1" || c.ServiceAccount != "waypoint" || c.TrustDomain != "td" {
		t.Errorf("place: %+v", c)
	}
	if c.XDS.URL != "https://pilot.x.svc:15012" || c.CA.URL != "https://istiod.istio-system.svc:15012" || c.XDS.RootCertFile != "/var/run/secrets/istio/root-cert.pem" {
		t.Errorf("upstreams: %+v %+v", c.XDS, c.CA)
	}
	if c.Drain.Termination != 7*time.Second || c.SecretTTL != time.Hour || c.Metadata["X"] != "y" || c.Threads != 2 || c.LogLevel != "warn,xds=debug" {
		t.Errorf("settings: %+v", c)
	}
	if c.Labels["a"] != "b" || c.Labels["c"] != "d" || c.Labels["gateway.networking.k8s.io/gateway-name"] != "waypoint" {
		t.Errorf("labels: %v", c.Labels)
	}
	if c.AdminAddr != "127.0.0.1:15000" || c.MetricsAddr != ":15020" || c.ReadinessAddr != ":15021" || c.EngineMetricsAddr != ":15090" {
		t.Errorf("ports: %+v", c)
	}
	if len(c.Warnings) != 1 || !strings.Contains(c.Warnings[0], "image") {
		t.Errorf("warnings: %q", c.Warnings)
	}
	if c.Envoy != nil {
		t.Error("an Envoy was not asked for")
	}
}

func TestLoadCases(t *testing.T) {
	for _, tt := range []struct {
		name    string
		args    []string
		environ []string
		check   func(app.Config) bool
	}{
		{"the domain by the namespace", nil, nil, func(c app.Config) bool { return c.Domain == "default.svc.cluster.local" }},
		{"the address that is given before those of the interfaces", nil, nil, func(c app.Config) bool {
			return len(c.InstanceIPs) == 3 && c.InstanceIPs[0] == netip.MustParseAddr("10.0.0.9") && c.InstanceIPs[2].Is6()
		}},
		{"the address by the interfaces", nil, []string{"INSTANCE_IP="}, func(c app.Config) bool {
			return len(c.InstanceIPs) == 2 && c.InstanceIPs[0] == netip.MustParseAddr("10.1.2.3")
		}},
		{"plaintext by the port", nil, []string{`PROXY_CONFIG=discoveryAddress: istiod:15010`}, func(c app.Config) bool {
			return c.XDS.URL == "http://istiod:15010" && c.CA.URL == "http://istiod:15010"
		}},
		{"another root", nil, []string{"PILOT_CERT_PROVIDER=kubernetes", "XDS_ROOT_CA=/x"}, func(c app.Config) bool {
			return c.XDS.RootCertFile == "/x" && strings.HasSuffix(c.CA.RootCertFile, "ca.crt")
		}},
		{"ports", nil, []string{"ENVOY_STATUS_PORT=1", "ENVOY_PROMETHEUS_PORT=2", "PROXY_CONFIG={proxyAdminPort: 3, statusPort: 4}"}, func(c app.Config) bool {
			return c.ReadinessAddr == ":1" && c.EngineMetricsAddr == ":2" && c.AdminAddr == "127.0.0.1:3" && c.MetricsAddr == ":4"
		}},
		{"drain", nil, []string{"TERMINATION_DRAIN_DURATION_SECONDS=3", "EXIT_ON_ZERO_ACTIVE_CONNECTIONS=true", "MINIMUM_DRAIN_DURATION=1s", "TERMINATION_GRACE_PERIOD_SECONDS=30"}, func(c app.Config) bool {
			return c.Drain.Termination == 3*time.Second && c.Drain.ExitOnZero && c.Drain.Minimum == time.Second && c.Drain.Listener == 45*time.Second && c.Drain.Grace == 30*time.Second
		}},
		{"a real Envoy", []string{"--engine=envoy", "--envoy=/opt/envoy", "--configDir", "/tmp/x", "--concurrency=3"}, nil, func(c app.Config) bool {
			return c.Envoy != nil && c.Envoy.Binary == "/opt/envoy" && c.Envoy.Dir == "/tmp/x" && c.Envoy.Concurrency == 3
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, err := config.Load(app.Router, tt.args, pod(nil, tt.environ...))
			if err != nil || !tt.check(c) {
				t.Errorf("%v: %+v", err, c)
			}
		})
	}
}

func TestLoadReportsEveryProblemByName(t *testing.T) {
	sources := pod(map[string]string{"/etc/istio/pod/labels": "a=b"},
		"POD_NAME=", "CA_ADDR=nowhere", "PILOT_CERT_PROVIDER=magic", "SECRET_TTL=soon", "OUTPUT_CERTS=/x", "ENVOY_STATUS_PORT=x",
		"ISTIO_METAJSON_LABELS={", "PROXY_CONFIG={nope: 1}", "INSTANCE_IP=here", "EXIT_ON_ZERO_ACTIVE_CONNECTIONS=perhaps")
	sources.Interfaces = func() ([]net.Addr, error) { return nil, errors.New("none") }
	_, err := config.Load(app.Router, []string{"--engine=nginx", "--log_output_level=loud"}, sources)
	for _, name := range []string{
		"POD_NAME", "CA_ADDR", "PILOT_CERT_PROVIDER", "SECRET_TTL", "OUTPUT_CERTS", "ENVOY_STATUS_PORT", "ISTIO_METAJSON_LABELS",
		"PROXY_CONFIG", "INSTANCE_IP", "EXIT_ON_ZERO", "--engine", "--log_output_level", "/etc/istio/pod/labels",
	} {
		if err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s is not named in: %v", name, err)
		}
	}
	for _, args := range [][]string{{"--unknown"}, {"more"}} {
		if _, err := config.Load(app.Router, args, pod(nil)); err == nil || !strings.Contains(err.Error(), "help") {
			t.Errorf("%v: %v", args, err)
		}
	}
}

func FuzzParseLabels(f *testing.F) {
	for _, seed := range []string{"", "a=\"b\"\n", "a=\"b\\\"c\\n\"\r\nd=\"\"", "a=b", "=\"\"", "a=`b`", "a='b'", "\n\n"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		labels, err := config.ParseLabels(text)
		if err != nil {
			return
		}
		var again strings.Builder
		for key, value := range labels {
			again.WriteString(key + "=" + strconv.Quote(value) + "\n")
		}
		back, err := config.ParseLabels(again.String())
		if err != nil || len(back) != len(labels) {
			t.Fatalf("%q became %q: %v", text, again.String(), err)
		}
		for key, value := range labels {
			// Quoting replaces what is not UTF-8.
			if back[key] != value && strings.ToValidUTF8(value, "") == value {
				t.Errorf("%q: %q became %q", key, value, back[key])
			}
		}
	})
}

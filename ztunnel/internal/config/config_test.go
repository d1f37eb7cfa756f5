package config_test

import (
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/isthmus-mesh/isthmus/pkg/hbone"
	"github.com/isthmus-mesh/isthmus/ztunnel/internal/config"
)

func TestLoadReadsTheFieldsNames(t *testing.T) {
	c, err := config.Load([]string{
		"NODE_NAME=n1", "XDS_ADDRESS=istiod.istio-system.svc:15012", "PACKET_MARK=0x539", "SECRET_TTL=1h",
		"ISTIO_META_CLUSTER_ID=c1", `ISTIO_METAJSON_LABELS={"a":"b"}`, "XDS_HEADER_X_TRACE=on", "LOG_FORMAT=json",
		"TERMINATION_GRACE_PERIOD_SECONDS=30", "HOME=/root",
	})
	if err != nil {
		t.Fatal(err)
	}
	if c.NodeName != "n1" || c.XDS.URL != "https://istiod.istio-system.svc:15012" || c.PacketMark != 1337 || c.SecretTTL != time.Hour ||
		c.Metadata["CLUSTER_ID"] != "c1" || c.XDS.Headers["x-trace"] != "on" || !c.LogJSON || c.DrainTimeout != 25*time.Second {
		t.Errorf("%+v", c)
	}
}

func TestLoadReportsEveryProblemByName(t *testing.T) {
	_, err := config.Load([]string{
		"IPV6_ENABLED=maybe", "SECRET_TTL=soon", "PROXY_MODE=dedicated", "TLS12_ENABLED=true", "PACKET_MARK=0",
		"XDS_ON_DEMAND=true", "ISTIO_META_DNS_CAPTURE=true", "TERMINATION_GRACE_PERIOD_SECONDS=x",
	})
	for _, name := range []string{"IPV6_ENABLED", "SECRET_TTL", "PROXY_MODE", "TLS12_ENABLED", "PACKET_MARK", "XDS_ON_DEMAND", "TERMINATION_GRACE"} {
		if err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s is not named in: %v", name, err)
		}
	}
}

func TestWhatTheFieldsChartsSet(t *testing.T) {
	base := []string{
		"XDS_ADDRESS=istiod.istio-system.svc:15012", "CA_ADDRESS=istiod.istio-system.svc:15012", "RUST_LOG=info", "RUST_BACKTRACE=1",
		"ISTIO_META_CLUSTER_ID=Kubernetes", "INPOD_ENABLED=true", "TERMINATION_GRACE_PERIOD_SECONDS=30", "POD_NAME=ztunnel-x",
		"POD_NAMESPACE=istio-system", "NODE_NAME=n", "INSTANCE_IP=10.244.0.5", "SERVICE_ACCOUNT=ztunnel", "ZTUNNEL_CPU_LIMIT=4",
		"XDS_ROOT_CA=/var/run/secrets/istio/root-cert.pem", "CA_ROOT_CA=/var/run/secrets/istio/root-cert.pem", "CLUSTER_ID=Kubernetes",
		"CLUSTER_DOMAIN=cluster.local", "NETWORK=n1", "TRUST_DOMAIN=cluster.local", "LOG_FORMAT=plain", "ISTIO_META_DNS_CAPTURE=true",
	}
	c, err := config.Load(base)
	if err != nil || c.LogLevel != "info" || c.InstanceIP.String() != "10.244.0.5" || c.ServiceAccount != "ztunnel" || !c.DNSProxy {
		t.Errorf("%v: %+v", err, c)
	}
	for value, want := range map[string]string{
		"RUST_LOG=warn": "warn",
		"RUST_LOG=access=off,ztunnel::proxy::inbound=debug": "access=off,proxy=debug",
		"RUST_LOG=hyper=warn,ztunnel=debug":                 "hyper=warn,debug",
		"LOG_LEVEL=error":                                   "error",
	} {
		if c, err := config.Load(append(base, value)); err != nil || c.LogLevel != want {
			t.Errorf("%s: %q, %v; want %q", value, c.LogLevel, err, want)
		}
	}
	for value, want := range map[string]int{"3": 3, "1%": 1, "100%": runtime.GOMAXPROCS(0)} {
		if c, err := config.Load([]string{"ZTUNNEL_WORKER_THREADS=" + value}); err != nil || c.Threads != want {
			t.Errorf("%s threads: %d, %v; want %d", value, c.Threads, err, want)
		}
	}
	for _, bad := range []string{"ZTUNNEL_WORKER_THREADS=x%", "ZTUNNEL_WORKER_THREADS=0", "RUST_LOG=loud", "INPOD_ENABLED=false"} {
		if _, err := config.Load([]string{bad}); err == nil {
			t.Errorf("%s was accepted", bad)
		}
	}
}

func TestTransport(t *testing.T) {
	for value, want := range map[string]hbone.Transport{"": hbone.Records, "crypto-tls": hbone.Standard, "records": hbone.Records, "ktls": hbone.Kernel} {
		if c, err := config.Load([]string{"HBONE_TRANSPORT=" + value}); err != nil || c.Transport != want {
			t.Errorf("%q: %v, %v; want %v", value, c.Transport, err, want)
		}
	}
	if _, err := config.Load([]string{"HBONE_TRANSPORT=plain"}); err == nil {
		t.Error("an unknown transport was accepted")
	}
}

func TestDrainTimeout(t *testing.T) {
	for _, tt := range []struct {
		env  []string
		want time.Duration
	}{
		{nil, 5 * time.Second},
		{[]string{"TERMINATION_GRACE_PERIOD_SECONDS=30"}, 25 * time.Second},
		{[]string{"TERMINATION_GRACE_PERIOD_SECONDS=10"}, 9 * time.Second},
		{[]string{"TERMINATION_GRACE_PERIOD_SECONDS=30", "CONNECTION_TERMINATION_DEADLINE=7s"}, 7 * time.Second},
	} {
		if c, err := config.Load(tt.env); err != nil || c.DrainTimeout != tt.want {
			t.Errorf("%v: %v, %v; want %v", tt.env, c.DrainTimeout, err, tt.want)
		}
	}
}

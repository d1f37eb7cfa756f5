package main

import (
	"strings"
	"testing"
	"time"

	"github.com/isthmus-mesh/isthmus/pilot/app"
	"github.com/isthmus-mesh/isthmus/pkg/telemetry"
)

func TestEnvironment(t *testing.T) {
	for name, value := range map[string]string{
		"REVISION": "canary", "POD_NAMESPACE": "mesh", "CA_TRUSTED_NODE_ACCOUNTS": "mesh/ztunnel, other/ztunnel", "MAX_WORKLOAD_CERT_TTL": "48h",
		"ISTHMUS_OFFLINE_TOKENS": "false", "PILOT_ENABLE_CA_CRL": "true", "PILOT_ENABLE_IP_AUTOALLOCATE": "false", "PILOT_CERT_PROVIDER": "istiod", "CITADEL_SELF_SIGNED_CA_CERT_TTL": "87600h",
	} {
		t.Setenv(name, value)
	}
	cfg := app.Default()
	if err := fromEnvironment(&cfg); err != nil {
		t.Fatal(err)
	}
	if cfg.Revision != "canary" || cfg.Namespace != "mesh" || strings.Join(cfg.TrustedNodeAccounts, "|") != "mesh/ztunnel|other/ztunnel" ||
		cfg.MaxCertTTL != 48*time.Hour || !cfg.Controllers.CRL || cfg.OfflineTokens || cfg.Controllers.IPAllocate || cfg.RootCertTTL != 87600*time.Hour {
		t.Errorf("read %+v", cfg)
	}
}

func TestWhatIsNotSupportedIsAnError(t *testing.T) {
	for name, tt := range map[string]struct {
		env  [2]string
		args []string
		want string
	}{
		"an external authority": {env: [2]string{"EXTERNAL_CA", "ISTIOD_RA_KUBERNETES_API"}, want: "EXTERNAL_CA"},
		"another issuer":        {env: [2]string{"PILOT_CERT_PROVIDER", "kubernetes"}, want: "PILOT_CERT_PROVIDER"},
		"no duration":           {env: [2]string{"DEFAULT_WORKLOAD_CERT_TTL", "day"}, want: "DEFAULT_WORKLOAD_CERT_TTL"},
		"another registry":      {args: []string{"--registries", "Consul"}, want: "Consul"},
		"networks":              {args: []string{"--networksConfig", "f"}, want: "topology.istio.io/network"},
		"two sources":           {args: []string{"--configDir", "d", "--kubeconfig", "k"}, want: "exclude each other"},
		"no cluster":            {want: "--configDir"},
		"an unknown flag":       {args: []string{"--plugins", "x"}, want: "unknown flag: --plugins"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("KUBERNETES_SERVICE_HOST", "")
			if tt.env[0] != "" {
				t.Setenv(tt.env[0], tt.env[1])
			}
			cmd := discovery(telemetry.NewBuild("", ""))
			cmd.SilenceErrors, cmd.SilenceUsage = true, true
			cmd.SetArgs(append([]string{"--log_output_level", "none"}, tt.args...))
			if err := cmd.Execute(); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want one with %q", err, tt.want)
			}
		})
	}
}

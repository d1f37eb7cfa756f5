package main

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/isthmus-mesh/isthmus/pilot/app"
)

// variable is a row of the table of environment variables.
type variable struct {
	name string
	set  func(string) error
}

// variables are named as Istio's.
func variables(cfg *app.Config) []variable {
	c := &cfg.Controllers
	return []variable{
		{"CLUSTER_ID", text(&cfg.ClusterID)},
		{"NETWORK", text(&cfg.Network)},
		{"CNI_NAMESPACE", text(&cfg.CNINamespace)},
		{"POD_NAME", text(&cfg.PodName)},
		{"POD_NAMESPACE", text(&cfg.Namespace)},
		{"REVISION", text(&cfg.Revision)},
		{"SHARED_MESH_CONFIG", text(&cfg.SharedMeshConfig)},
		{"ISTIOD_CUSTOM_HOST", list(&cfg.ServerNames)},

		{"CA_TRUSTED_NODE_ACCOUNTS", list(&cfg.TrustedNodeAccounts)},
		{"TRUSTED_GATEWAY_CIDR", prefixes(&cfg.TrustedGateways)},
		{"TOKEN_AUDIENCES", list(&cfg.TokenAudiences)},
		{"ISTHMUS_OFFLINE_TOKENS", boolean(&cfg.OfflineTokens)},
		{"DEFAULT_WORKLOAD_CERT_TTL", duration(&cfg.DefaultCertTTL)},
		{"MAX_WORKLOAD_CERT_TTL", duration(&cfg.MaxCertTTL)},
		{"CITADEL_SELF_SIGNED_CA_CERT_TTL", duration(&cfg.RootCertTTL)},
		{"CITADEL_SELF_SIGNED_ROOT_CERT_CHECK_INTERVAL", duration(&cfg.RootCertCheck)},
		{"CITADEL_SELF_SIGNED_ROOT_CERT_GRACE_PERIOD_PERCENTILE", percent(&cfg.RootCertGrace)},
		{"BLOCKED_CIDRS_IN_JWKS_URIS", prefixes(&cfg.BlockedKeySources)},
		{"PILOT_CERT_PROVIDER", only("istiod", "the control plane issues its own certificate; name another one with --tlsCertFile and --tlsKeyFile")},
		{"EXTERNAL_CA", only("", "the certificate authority is the control plane's own: plug another one's intermediate in with the Secret cacerts")},
		{"COMPLIANCE_POLICY", only("", "there is none yet")},

		{"PILOT_HTTP10", boolean(&cfg.HTTP10)},
		{"ENABLE_CLUSTER_TRUST_BUNDLE_API", boolean(&c.TrustBundle)},
		{"PILOT_ENABLE_CA_CRL", boolean(&c.CRL)},
		{"PILOT_ENABLE_GATEWAY_API_DEPLOYMENT_CONTROLLER", boolean(&c.Deploy)},
		{"PILOT_ENABLE_GATEWAY_API_STATUS", boolean(&c.Status)},
		{"AMBIENT_ENABLE_DRY_RUN_AUTHORIZATION_POLICY", boolean(&cfg.DryRunPolicies)},
		{"AMBIENT_ENABLE_STATUS", boolean(&c.Status)},
		{"PILOT_ENABLE_IP_AUTOALLOCATE", boolean(&c.IPAllocate)},
		{"PILOT_ENABLE_NODE_UNTAINT_CONTROLLERS", boolean(&c.Untaint)},
		{"PILOT_ENABLE_AMBIENT", only("true", "ambient is what this control plane is for")},
		{"PILOT_ENABLE_GATEWAY_API", only("true", "the Gateway API cannot be turned off")},
	}
}

// fromEnvironment reads all of them. Flags count before them.
func fromEnvironment(cfg *app.Config) error {
	var problems []error
	for _, v := range variables(cfg) {
		if s := os.Getenv(v.name); s != "" {
			if err := v.set(s); err != nil {
				problems = append(problems, fmt.Errorf("environment variable %s: %w", v.name, err))
			}
		}
	}
	return errors.Join(problems...)
}

func text(field *string) func(string) error {
	return func(s string) error { *field = s; return nil }
}

func list(field *[]string) func(string) error {
	return func(s string) error {
		*field = nil
		for part := range strings.SplitSeq(s, ",") {
			if part = strings.TrimSpace(part); part != "" {
				*field = append(*field, part)
			}
		}
		return nil
	}
}

func duration(field *time.Duration) func(string) error {
	return func(s string) error {
		d, err := time.ParseDuration(s)
		if err == nil && d <= 0 {
			err = fmt.Errorf("%s is not more than nothing", s)
		}
		if err == nil {
			*field = d
		}
		return err
	}
}

func boolean(field *bool) func(string) error {
	return func(s string) error {
		b, err := strconv.ParseBool(s)
		if err != nil {
			return fmt.Errorf("%q is neither true nor false", s)
		}
		*field = b
		return nil
	}
}

func percent(field *int) func(string) error {
	return func(s string) error {
		n, err := strconv.Atoi(s)
		if err != nil || n < 1 || n > 99 {
			return fmt.Errorf("%q is not a number from 1 to 99", s)
		}
		*field = n
		return nil
	}
}

// only accepts one value, and says why there are no others.
func only(value, why string) func(string) error {
	return func(s string) error {
		if s != value {
			return fmt.Errorf("%q is not supported: %s", s, why)
		}
		return nil
	}
}

// prefixes replaces the field by a list of blocks.
func prefixes(field *[]netip.Prefix) func(string) error {
	return func(s string) error {
		var out []netip.Prefix
		for part := range strings.SplitSeq(s, ",") {
			p, err := netip.ParsePrefix(strings.TrimSpace(part))
			if err != nil {
				return err
			}
			out = append(out, p.Masked())
		}
		*field = out
		return nil
	}
}

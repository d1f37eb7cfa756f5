package config

import (
	"flag"
	"fmt"
	"io"
	"strings"
)

// flags of `waypoint proxy` and `waypoint agent`, named as pilot-agent's.
type flags struct {
	domain, serviceCluster, outputLevel, proxyLogLevel, componentLogLevel string
	engine, envoy, configDir, tokenFile                                   string
	concurrency                                                           int
	logJSON                                                               bool
}

// flagSet declares the flags. Those of pilot-agent that mean nothing here are accepted, because charts pass them.
func flagSet(f *flags) *flag.FlagSet {
	set := flag.NewFlagSet("proxy", flag.ContinueOnError)
	set.StringVar(&f.domain, "domain", "", "DNS `domain` of the proxy (default: $POD_NAMESPACE.svc.cluster.local)")
	set.StringVar(&f.serviceCluster, "serviceCluster", "", "`name` of the group of proxies (default: by labels)")
	set.StringVar(&f.outputLevel, "log_output_level", "", "`levels` of the log: default:info,xds:debug")
	set.BoolVar(&f.logJSON, "log_as_json", false, "log JSON instead of text")
	set.StringVar(&f.proxyLogLevel, "proxyLogLevel", "warning,misc:error", "log `level` of a real Envoy")
	set.StringVar(&f.componentLogLevel, "proxyComponentLogLevel", "", "log `levels` of the components of a real Envoy")
	set.IntVar(&f.concurrency, "concurrency", 0, "`threads` that serve (0: by the machine)")
	set.StringVar(&f.engine, "engine", "isthmus", "the proxy's `engine`: isthmus, or envoy")
	set.StringVar(&f.envoy, "envoy", "envoy", "`path` of the Envoy binary, for --engine envoy")
	set.StringVar(&f.configDir, "configDir", "/etc/istio/proxy", "`directory` for the bootstrap and sockets of a real Envoy")
	set.StringVar(&f.tokenFile, "tokenFile", "", "`file` with the token for the control plane (default: the pod's istio-token)")
	for _, name := range []string{
		"stsPort", "tokenManagerPlugin", "templateFile", "meshConfig", "outlierLogPath", "log_target", "log_rotate",
		"log_rotate_max_age", "log_rotate_max_backups", "log_rotate_max_size", "log_caller", "log_stacktrace_level", "vklog", "profiling",
	} {
		set.String(name, "", "accepted for compatibility; no effect")
	}
	set.SetOutput(io.Discard)
	return set
}

func parseFlags(args []string) (flags, error) {
	var f flags
	set := flagSet(&f)
	if err := set.Parse(args); err != nil {
		return f, fmt.Errorf("%w; see `waypoint help`", err)
	}
	if set.NArg() > 0 {
		return f, fmt.Errorf("unexpected argument %q; see `waypoint help`", set.Arg(0))
	}
	return f, nil
}

// Usage describes the flags.
func Usage() string {
	var out strings.Builder
	set := flagSet(&flags{})
	set.VisitAll(func(f *flag.Flag) {
		name, usage := flag.UnquoteUsage(f)
		if strings.HasPrefix(usage, "accepted for compatibility") {
			return
		}
		fmt.Fprintf(&out, "  --%-34s %s\n", f.Name+" "+name, usage)
	})
	return out.String()
}

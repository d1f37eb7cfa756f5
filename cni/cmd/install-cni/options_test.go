package main

import (
	"slices"
	"strings"
	"testing"

	"github.com/isthmus-mesh/isthmus/cni/app"
)

func readWith(t *testing.T, env map[string]string, args ...string) (settings, error) {
	t.Helper()
	s := settings{Config: app.Default()}
	err := read(&s, args, func(name string) string { return env[name] })
	return s, err
}

func TestOnKubernetes(t *testing.T) {
	s, err := readWith(t, map[string]string{
		"NODE_NAME": "n1", "POD_NAME": "istio-cni-node-x", "POD_NAMESPACE": "istio-system", "CNI_NET_DIR": "/etc/cni/net.d", "CHAINED_CNI_PLUGIN": "true",
		"EXCLUDE_NAMESPACES": "kube-system, other", "AMBIENT_ENABLED": "true", "AMBIENT_DNS_CAPTURE": "false", "AMBIENT_IPV6": "false",
		"AMBIENT_RECONCILE_POD_RULES_ON_STARTUP": "false", "ISTIO_OWNED_CNI_CONFIG": "true", "ISTIO_OWNED_CNI_CONFIG_FILENAME": "01-x.conflist",
		"NATIVE_NFTABLES": "false", "FORCE_IPTABLES_BINARY": "legacy", "HOST_PROBE_SNAT_IP": "169.254.9.9", "LOG_LEVEL": "debug", "AMBIENT_ENABLE_AWS_BRANCH_ENI_PROBE": "false",
		"REPAIR_ENABLED": "true", "REPAIR_DELETE_PODS": "true", "REPAIR_INIT_CONTAINER_EXIT_CODE": "7", "REPAIR_NODE_NAME": "n9",
	}, "--monitoring-port=15099")
	if err != nil {
		t.Fatal(err)
	}
	i := s.Install
	if s.Node != "n1" || s.PodNamespace != "istio-system" || s.HostProc != "/host/proc" || i.NetDir != "/host/etc/cni/net.d" || i.BinDir != "/host/opt/cni/bin" ||
		i.Unchained || !i.Owned || i.OwnedName != "01-x.conflist" || !slices.Equal(s.ExcludeNamespaces, []string{"kube-system", "other"}) {
		t.Errorf("%+v", s)
	}
	if s.AmbientDisabled || s.Redirect.DNS || s.Redirect.IPv6 || !s.KeepRules || s.Backend != "iptables" || s.IPTables != "legacy" ||
		s.Redirect.ProbeSource.String() != "169.254.9.9" || s.level != "debug" || !s.NoBranchProbes || s.MonitoringAddr != ":15099" {
		t.Errorf("%+v", s)
	}
	if r := s.Repair; !r.Enabled || r.RepairPods || !r.DeletePods || r.ExitCode != 7 {
		t.Errorf("%+v", r)
	}
	if s, err = readWith(t, map[string]string{"MOUNTED_CNI_NET_DIR": "/mnt/net.d"}); err != nil || s.NoBranchProbes || s.Install.NetDir != "/mnt/net.d" || !slices.Equal(s.ExcludeNamespaces, []string{"kube-system"}) {
		t.Errorf("%v, %+v", err, s)
	}
}

func TestOnAMachine(t *testing.T) {
	s, err := readWith(t, nil, "--node", "n1", "--config-dir", "/c", "--cni-net-dir=/n", "--cni-bin-dir=/b", "--cleanup-on-exit", "--exclude-namespaces=a,b")
	if err != nil || s.HostProc != "" || s.Install.NetDir != "/n" || s.Install.BinDir != "/b" || !s.CleanUp || !slices.Equal(s.ExcludeNamespaces, []string{"a", "b"}) {
		t.Errorf("%v, %+v", err, s)
	}
}

func TestWhatCannotBeRead(t *testing.T) {
	for name, value := range map[string]string{
		"AMBIENT_IPV6": "perhaps", "AMBIENT_ENABLE_AWS_BRANCH_ENI_PROBE": "maybe", "HOST_PROBE_SNAT_IP": "here", "FORCE_IPTABLES_BINARY": "new", "REPAIR_INIT_CONTAINER_EXIT_CODE": "x", "NATIVE_NFTABLES": "?", "MONITORING_PORT": "70000",
	} {
		if _, err := readWith(t, map[string]string{name: value}); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s=%s: %v", name, value, err)
		}
	}
	if _, err := readWith(t, nil, "--no-such-flag"); err == nil {
		t.Error("a flag that there is not was taken")
	}
	seen := map[string]string{}
	for _, o := range options(&settings{}) {
		for _, v := range o.variables() {
			if other, ok := seen[v]; ok && other != o.name {
				t.Errorf("%s belongs to --%s and --%s", v, other, o.name)
			}
			seen[v] = o.name
		}
	}
}

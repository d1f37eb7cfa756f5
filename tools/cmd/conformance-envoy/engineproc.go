package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// startEngine runs our engine as the container of a gateway's pod does: with a token, labels and roots at the usual paths, in a mount
// namespace of its own.
func (b *testbed) startEngine(p *proxy) error {
	root := filepath.Join(b.dir, p.pod)
	token, err := b.pki.token(p.pair.namespace, p.pair.account, p.pod)
	if err != nil {
		return err
	}
	var labels strings.Builder
	for _, k := range sortedKeys(p.pair.labels) {
		fmt.Fprintf(&labels, "%s=%q\n", k, p.pair.labels[k])
	}
	for name, text := range map[string]string{
		"tokens/istio-token":  token,
		"istio/root-cert.pem": string(pemOf("CERTIFICATE", b.pki.cert.Raw)),
		"pod/labels":          labels.String(),
		"pod/annotations":     "",
		"hosts":               "127.0.0.1 localhost\n" + hub().String() + " istiod.istio-system.svc\n",
		"data/empty":          "",
		"proxy/empty":         "",
	} {
		file := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			return err
		}
	}
	proxyConfig, err := json.Marshal(map[string]string{"discoveryAddress": "istiod.istio-system.svc:15012"})
	if err != nil {
		return err
	}
	script := `set -e
mount -t tmpfs tmpfs /var/run/secrets 2>/dev/null || { mkdir -p /var/run/secrets; mount -t tmpfs tmpfs /var/run/secrets; }
mkdir -p /etc/istio && mount -t tmpfs tmpfs /etc/istio && mkdir -p /var/run/secrets/tokens /var/run/secrets/istio /etc/istio/pod /etc/istio/proxy
mount --bind "$ROOT/tokens" /var/run/secrets/tokens
mount --bind "$ROOT/istio" /var/run/secrets/istio
mount --bind "$ROOT/pod" /etc/istio/pod
mount --bind "$ROOT/proxy" /etc/istio/proxy
mount --bind "$ROOT/hosts" /etc/hosts
exec "$@"`
	args := append(p.ns.enter(), "unshare", "--mount", "--propagation", "private", "sh", "-c", script, "sh",
		filepath.Join(b.options.bin, "waypoint"), "proxy", p.pair.kind,
		"--domain", p.pair.namespace+".svc.cluster.local", "--serviceCluster", p.pair.name+"."+p.pair.namespace)
	p.cmd, p.exited, err = startProcess(b.dir, p.pod, args, []string{
		"ROOT=" + root, "POD_NAME=" + p.pod, "POD_NAMESPACE=" + p.pair.namespace, "INSTANCE_IP=" + p.ns.ip.String(), "HOST_IP=" + hub().String(),
		"SERVICE_ACCOUNT=" + p.pair.account, "CA_ADDR=istiod.istio-system.svc:15012", "PROXY_CONFIG=" + string(proxyConfig),
		"ISTIO_META_CLUSTER_ID=Kubernetes", "ISTIO_META_MESH_ID=" + trustDomain, "ISTIO_META_NODE_NAME=node-1", "TRUST_DOMAIN=" + trustDomain,
		"PILOT_CERT_PROVIDER=istiod",
	})
	return err
}

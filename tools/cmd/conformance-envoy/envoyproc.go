package main

import (
	"context"
	"crypto"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"github.com/isthmus-mesh/isthmus/pkg/certs"
)

// adminPort of both engines.
const adminPort = 15000

// proxy is a running engine in a pod of its own.
type proxy struct {
	pair   proxyPair
	engine string // envoy or isthmus
	pod    string
	ns     *netns
	cmd    *exec.Cmd
	exited chan error
	admin  *http.Client
	secret *secretServer
	// rejected are the counters of refused updates when they were last looked at.
	rejected map[string]int
}

// startProcess runs a command whose output goes to a file, and which dies with this process.
func startProcess(dir, name string, args, env []string) (*exec.Cmd, chan error, error) {
	file, err := os.Create(filepath.Join(dir, name+".log"))
	if err != nil {
		return nil, nil, err
	}
	defer file.Close()
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Stdout, cmd.Stderr = file, file
	cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + dir}, env...)
	cmd.Dir = dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return nil, nil, fmt.Errorf("start %s: %w", name, err)
	}
	exited := make(chan error, 1)
	go func() { exited <- cmd.Wait() }()
	return cmd, exited, nil
}

func (b *testbed) newProxy(ctx context.Context, number int, pair proxyPair, engine string) (*proxy, error) {
	index := 0
	if engine != "envoy" {
		index = 1
	}
	ns, err := newNetns(ctx, number, pair.ips[index])
	if err != nil {
		return nil, err
	}
	p := &proxy{pair: pair, engine: engine, pod: pair.name + "-" + engine, ns: ns}
	p.admin = &http.Client{Transport: &http.Transport{DialContext: ns.dial}, Timeout: 30 * time.Second}
	if engine == "envoy" {
		err = b.startEnvoy(p)
	} else {
		err = b.startEngine(p)
	}
	if err != nil {
		p.close()
		return nil, err
	}
	return p, nil
}

// startEnvoy writes the bootstrap that an agent would, and is that agent.
func (b *testbed) startEnvoy(p *proxy) error {
	identity, err := b.pki.workload(p.pair.namespace, p.pair.account)
	if err != nil {
		return err
	}
	socket := filepath.Join(b.dir, p.pod+".sds")
	if p.secret, err = startSecretServer(socket, identity); err != nil {
		return err
	}
	own, ownKey := filepath.Join(b.dir, p.pod+".pem"), filepath.Join(b.dir, p.pod+"-key.pem")
	if err := writeIdentity(identity, own, ownKey); err != nil {
		return err
	}
	file := filepath.Join(b.dir, p.pod+".json")
	authority := filepath.Join(b.dir, "ca", "root-cert.pem")
	text, err := json.MarshalIndent(b.bootstrap(p, socket, identityFiles{own, ownKey, authority}), "", " ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(file, text, 0o600); err != nil {
		return err
	}
	args := append(p.ns.enter(), b.options.envoy, "-c", file, "--concurrency", "1", "--disable-hot-restart", "--file-flush-interval-msec", "20", "--log-level", "warn", "--component-log-level", "misc:error")
	p.cmd, p.exited, err = startProcess(b.dir, p.pod, args, nil)
	return err
}

type object = map[string]any

// identityFiles are those of a proxy's certificate.
type identityFiles struct{ certificate, key, authority string }

func writeIdentity(w *certs.Workload, certificate, key string) error {
	signer, ok := w.Certificate.PrivateKey.(crypto.Signer)
	if !ok {
		return errors.New("write an identity: the key cannot sign")
	}
	text, err := keyPEM(signer)
	if err != nil {
		return err
	}
	if err := os.WriteFile(key, text, 0o600); err != nil {
		return err
	}
	return os.WriteFile(certificate, pemOf("CERTIFICATE", w.Certificate.Certificate[0]), 0o600)
}

// meshTLS is the connection to the control plane: as an agent does, the proxy proves who it is, by which credentials are given.
func meshTLS(own identityFiles) object {
	in := func(file string) object { return object{"filename": file} }
	return object{"name": "envoy.transport_sockets.tls", "typed_config": object{
		"@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext", "sni": "istiod.istio-system.svc",
		"common_tls_context": object{
			"alpn_protocols":     []string{"h2"},
			"tls_certificates":   []any{object{"certificate_chain": in(own.certificate), "private_key": in(own.key)}},
			"validation_context": object{"trusted_ca": in(own.authority)},
		},
	}}
}

// bootstrap is what an agent writes for a proxy.
func (b *testbed) bootstrap(p *proxy, secrets string, own identityFiles) object {
	grpc := func(name string, address object) object {
		return object{
			"name": name, "type": "STATIC", "connect_timeout": "5s",
			"load_assignment": object{"cluster_name": name, "endpoints": []any{object{"lb_endpoints": []any{object{"endpoint": object{"address": address}}}}}},
			"typed_extension_protocol_options": object{"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": object{
				"@type":                "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
				"explicit_http_config": object{"http2_protocol_options": object{}},
			}},
		}
	}
	controlPlane := grpc("xds-grpc", socketAddress(hub().String(), 15012))
	if b.istiod != nil {
		controlPlane = grpc("xds-grpc", socketAddress(hub().String(), relayPort))
	} else {
		controlPlane["transport_socket"] = meshTLS(own)
	}
	ads := object{"ads": object{}, "initial_fetch_timeout": "0s", "resource_api_version": "V3"}
	return object{
		"node": object{
			"id":      fmt.Sprintf("%s~%s~%s.%s~%s.svc.cluster.local", p.pair.kind, p.ns.ip, p.pod, p.pair.namespace, p.pair.namespace),
			"cluster": p.pair.name + "." + p.pair.namespace,
			"metadata": object{
				"NAME": p.pod, "NAMESPACE": p.pair.namespace, "CLUSTER_ID": "Kubernetes", "LABELS": p.pair.labels, "ISTIO_VERSION": "1.31.0",
				"INSTANCE_IPS": p.ns.ip.String(), "SERVICE_ACCOUNT": p.pair.account, "MESH_ID": trustDomain,
				"ENABLE_HBONE": "true",
			},
		},
		"admin": object{"address": socketAddress("127.0.0.1", adminPort)},
		"bootstrap_extensions": []any{object{
			"name":         "envoy.bootstrap.internal_listener",
			"typed_config": object{"@type": "type.googleapis.com/envoy.extensions.bootstrap.internal_listener.v3.InternalListener"},
		}},
		"dynamic_resources": object{
			"ads_config": object{
				"api_type": "DELTA_GRPC", "set_node_on_first_message_only": true, "transport_api_version": "V3",
				"grpc_services": []any{object{"envoy_grpc": object{"cluster_name": "xds-grpc"}}},
			},
			"lds_config": ads, "cds_config": ads,
		},
		"static_resources": object{"clusters": []any{
			controlPlane,
			grpc("sds-grpc", object{"pipe": object{"path": secrets}}),
		}},
	}
}

func socketAddress(address string, port int) object {
	return object{"socket_address": object{"address": address, "port_value": port}}
}

// get asks the admin port.
func (p *proxy) get(ctx context.Context, path string) ([]byte, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("http://127.0.0.1:%d%s", adminPort, path), nil)
	if err != nil {
		return nil, err
	}
	response, err := p.admin.Do(request)
	if err != nil {
		return nil, fmt.Errorf("ask the admin port of %s: %w", p.pod, err)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("ask %s for %s: %s", p.pod, path, response.Status)
	}
	return io.ReadAll(response.Body)
}

// alive is nil while the process runs.
func (p *proxy) alive() error {
	select {
	case err := <-p.exited:
		p.exited <- err
		return fmt.Errorf("%s has ended: %s", p.pod, fmt.Sprint(err))
	default:
		return nil
	}
}

func (p *proxy) close() {
	if p.cmd != nil {
		p.cmd.Process.Kill()
		<-p.exited
	}
	if p.secret != nil {
		p.secret.grpc.Stop()
	}
	p.ns.close()
}

package scenario

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"strings"
	"time"
)

const (
	ingressHost    = "istio-ingressgateway." + meshNamespace
	classicGateway = "bookinfo/networking/bookinfo-gateway.yaml"
	gatewayAPI     = "bookinfo/gateway-api/bookinfo-gateway.yaml"
	fromOutside    = outsideNamespace + "/deploy/curl"
)

const pageForIngress = `apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: page-for-ingress, namespace: default}
spec:
  selector: {matchLabels: {app: productpage}}
  action: ALLOW
  rules:
  - from: [{source: {principals: ["cluster.local/ns/istio-system/sa/istio-ingressgateway-service-account"]}}]
`

// Ingress opens Bookinfo to callers outside the mesh.
func (b *Bed) Ingress(ctx context.Context) {
	b.Report.Section("Bookinfo from outside, through the ingress gateway")
	since := time.Now()
	b.Report.Check(ctx, func(ctx context.Context) (string, error) {
		if err := b.sample(ctx, classicGateway); err != nil {
			return "", err
		}
		url := "http://" + ingressHost + "/productpage"
		r, err := b.until(ctx, "the product page at "+url, isPage, fromOutside, url)
		if err != nil {
			return "", err
		}
		return fmt.Sprintf("a pod that is not in the mesh gets the product page at %s (%d bytes), %d ms after the Gateway and its VirtualService were applied",
			url, len(r.body), time.Since(since).Milliseconds()), nil
	})
	b.Report.Check(ctx, func(ctx context.Context) (string, error) {
		address, err := b.nodePort(ctx, meshNamespace, "istio-ingressgateway", "80")
		if err != nil {
			return "", err
		}
		if _, err := b.until(ctx, "the product page at a node's port", isPage, fromOutside, "http://"+address+"/productpage"); err != nil {
			return "", err
		}
		for path, want := range map[string]int{"/static/bookinfo.css": 200, "/api/v1/products": 200, "/": 404, "/health": 404} {
			r, err := b.fetch(ctx, fromOutside, "http://"+address+path)
			if err != nil || r.status != want {
				return "", expected(fmt.Sprintf("%s to answer %d", path, want), "%s %v", r, err)
			}
		}
		return "so does one at a node's port, " + address + "; paths that no route names are not found there (404)", nil
	})
	b.Report.Check(ctx, func(ctx context.Context) (string, error) {
		if err := b.apply(ctx, "page-for-ingress.yaml", pageForIngress); err != nil {
			return "", err
		}
		defer b.remove(ctx, pageForIngress)
		if _, err := b.mustNotGet(ctx, inMesh, productpage); err != nil {
			return "", err
		}
		if _, err := b.until(ctx, "the product page", isPage, fromOutside, "http://"+ingressHost+"/productpage"); err != nil {
			return "", err
		}
		return "the gateway is in the mesh, with an identity of its own: a policy of L4 that lets in nobody else refuses curl", nil
	})
	b.Report.Check(ctx, func(ctx context.Context) (string, error) {
		since := time.Now()
		if err := b.sample(ctx, gatewayAPI); err != nil {
			return "", err
		}
		defer b.takeBack(ctx, gatewayAPI)
		if _, err := b.programmed(ctx, "bookinfo-gateway"); err != nil {
			return "", err
		}
		if _, err := b.until(ctx, "the product page", isPage, fromOutside, "http://bookinfo-gateway-istio.default/productpage"); err != nil {
			return "", err
		}
		return fmt.Sprintf("a Gateway of the Gateway API and an HTTPRoute: deployed, programmed and serving the page after %.1f s", time.Since(since).Seconds()), nil
	})
}

// nodePort is where a port of a Service is reached from outside: the first node's address and the Service's node port.
func (b *Bed) nodePort(ctx context.Context, namespace, name, port string) (string, error) {
	status, err := b.Sandbox.Status(ctx)
	if err != nil {
		return "", err
	}
	for _, s := range status.Services {
		if s.Namespace != namespace || s.Name != name {
			continue
		}
		for _, p := range s.Ports {
			ports, _, _ := strings.Cut(p, "/")
			if own, node, ok := strings.Cut(ports, ":"); ok && own == port && len(status.Nodes) > 0 {
				return net.JoinHostPort(status.Nodes[0].IPs[0], node), nil
			}
		}
	}
	return "", fmt.Errorf("service %s/%s has no node port for port %s", namespace, name, port)
}

// programmed waits until a Gateway's status says that it is, and returns its first address.
func (b *Bed) programmed(ctx context.Context, name string) (string, error) {
	var address, seen string
	waited := b.eventually(ctx, func() bool {
		list, err := b.Sandbox.List(ctx, "gateway.gateway.networking.k8s.io", "default")
		if err != nil {
			return false
		}
		for _, raw := range list {
			var gw struct {
				Metadata struct{ Name string }
				Status   struct {
					Addresses  []struct{ Value string }
					Conditions []struct{ Type, Status, Message string }
				}
			}
			if json.Unmarshal(raw, &gw) != nil || gw.Metadata.Name != name {
				continue
			}
			for _, c := range gw.Status.Conditions {
				if c.Type != "Programmed" {
					continue
				}
				seen = c.Status + ": " + c.Message
				if c.Status == "True" && len(gw.Status.Addresses) > 0 {
					address = gw.Status.Addresses[0].Value
					return true
				}
			}
		}
		return false
	})
	if waited != nil {
		return "", expected("Gateway "+name+" to be programmed", "%q", seen)
	}
	return address, nil
}

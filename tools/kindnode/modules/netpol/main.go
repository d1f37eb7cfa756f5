// Command netpol enforces NetworkPolicies on a node of a lab cluster: the policy controller of kube-router, without its
// router and its service proxy. It restores whole tables of iptables: give it some of its own.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/cloudnativelabs/kube-router/v2/pkg/controllers/netpol"
	"github.com/cloudnativelabs/kube-router/v2/pkg/healthcheck"
	"github.com/cloudnativelabs/kube-router/v2/pkg/options"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
)

func main() {
	node := flag.String("node", "", "name of this node")
	pods := flag.String("pod-subnet", "10.244.0.0/16", "ranges of the pods' addresses, comma-separated: they say which families there are")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, *node, *pods)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "netpol:", err)
		os.Exit(1)
	}
}

// configure takes kind's ranges of services' addresses: the manifest is told of pods' only.
func configure(node, podSubnets string) *options.KubeRouterConfig {
	config := options.NewKubeRouterConfig()
	config.RunFirewall, config.HostnameOverride, config.ClusterIPCIDRs = true, node, nil
	for s := range strings.SplitSeq(podSubnets, ",") {
		if strings.Contains(s, ":") {
			config.EnableIPv6, config.ClusterIPCIDRs = true, append(config.ClusterIPCIDRs, "fd00:10:96::/112")
		} else {
			config.EnableIPv4, config.ClusterIPCIDRs = true, append(config.ClusterIPCIDRs, "10.96.0.0/16")
		}
	}
	return config
}

func run(ctx context.Context, node, podSubnets string) error {
	cluster, err := rest.InClusterConfig()
	if err != nil {
		return err
	}
	client, err := kubernetes.NewForConfig(cluster)
	if err != nil {
		return err
	}
	config := configure(node, podSubnets)
	factory := informers.NewSharedInformerFactory(client, 0)
	pods, namespaces := factory.Core().V1().Pods().Informer(), factory.Core().V1().Namespaces().Informer()
	policies := factory.Networking().V1().NetworkPolicies().Informer()
	tables, sets, err := netpol.NewIPTablesHandlers(config)
	if err != nil {
		return fmt.Errorf("iptables and ipset: %w", err)
	}
	var ipsets sync.Mutex
	controller, err := netpol.NewNetworkPolicyController(client, config, pods, policies, namespaces, &ipsets, tables, sets)
	if err != nil {
		return err
	}
	for informer, handler := range map[cache.SharedIndexInformer]cache.ResourceEventHandler{
		pods: controller.PodEventHandler, namespaces: controller.NamespaceEventHandler, policies: controller.NetworkPolicyEventHandler,
	} {
		if _, err := informer.AddEventHandler(handler); err != nil {
			return err
		}
	}
	factory.Start(ctx.Done())
	// With less than everything it would take pods out of their policies.
	for kind, ok := range factory.WaitForCacheSync(ctx.Done()) {
		if !ok {
			return fmt.Errorf("%s not read", kind)
		}
	}
	return follow(ctx, controller)
}

// follow runs the controller, whose heartbeats somebody has to take.
func follow(ctx context.Context, controller *netpol.NetworkPolicyController) error {
	beats := make(chan *healthcheck.ControllerHeartbeat, 10)
	var running sync.WaitGroup
	running.Add(1)
	go controller.Run(beats, ctx.Done(), &running)
	for {
		select {
		case <-beats:
		case <-ctx.Done():
			stopped := make(chan struct{})
			go func() { running.Wait(); close(stopped) }()
			select {
			case <-stopped:
			case <-time.After(5 * time.Second):
			}
			return nil
		}
	}
}

// Command kindnetlite runs on every node of a lab cluster and keeps its pod network (package kindnetlite).
package main

import (
	"context"
	"flag"
	"log/slog"
	"net/netip"
	"os"
	"os/signal"
	"reflect"
	"syscall"
	"time"

	"github.com/isthmus-mesh/isthmus/tools/kindnode/kindnetlite"
)

func main() {
	var (
		node     = flag.String("node", "", "name of this node")
		subnets  = flag.String("pod-subnet", "", "ranges of the cluster's pods, comma-separated")
		endpoint = flag.String("apiserver", "", "host:port of the API server")
		account  = flag.String("account", "/var/run/secrets/kubernetes.io/serviceaccount", "folder with token and ca.crt")
		conflist = flag.String("conflist", "/etc/cni/net.d/10-kindnet.conflist", "CNI configuration to write")
		period   = flag.Duration("period", 3*time.Second, "time between looks at the nodes")
	)
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	podSubnets, err := kindnetlite.ParsePrefixes(*subnets)
	if err != nil {
		log.Error("cannot start", "error", err)
		os.Exit(1)
	}
	api, err := kindnetlite.NewAPIServer(*endpoint, *account)
	if err != nil {
		log.Error("cannot start", "error", err)
		os.Exit(1)
	}
	var applied kindnetlite.Plan
	for {
		plan, err := look(ctx, api, *node, podSubnets)
		if err == nil && !reflect.DeepEqual(plan, applied) {
			if err = kindnetlite.Apply(ctx, plan, *conflist); err == nil {
				applied = plan
				log.Info("applied", "routes", plan.Routes)
			}
		}
		if err != nil {
			log.Warn("trying again", "error", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(*period):
		}
	}
}

func look(ctx context.Context, api *kindnetlite.APIServer, node string, podSubnets []netip.Prefix) (kindnetlite.Plan, error) {
	nodes, err := api.Nodes(ctx)
	if err != nil {
		return kindnetlite.Plan{}, err
	}
	return kindnetlite.Decide(nodes, node, podSubnets)
}

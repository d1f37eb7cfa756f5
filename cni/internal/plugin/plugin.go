// Package plugin is the CNI plugin: it tells the node agent of each pod whose network has been made. It fails closed: when
// the agent cannot be asked, the pod does not start.
package plugin

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
	current "github.com/containernetworking/cni/pkg/types/100"
	"github.com/containernetworking/cni/pkg/version"

	"github.com/isthmus-mesh/isthmus/cni/internal/pluginapi"
)

const (
	// DefaultSocket is where the agent listens.
	DefaultSocket = "/var/run/istio-cni/pluginevent.sock"
	// agentTimeout bounds one request; the agent itself waits a while for the pod's object.
	agentTimeout = 30 * time.Second
)

// Config is the plugin's part of the network configuration.
type Config struct {
	types.PluginConf
	// Socket of the agent; DefaultSocket when there is none in the configuration.
	Socket string `json:"plugin_event_socket,omitempty"`
	// ExcludeNamespaces are left alone, even while there is no agent.
	ExcludeNamespaces []string `json:"exclude_namespaces,omitempty"`
	// SystemNamespaces have pods that the agent itself needs, and the agent: they start while there is no agent, which enrols
	// them once it is back.
	SystemNamespaces []string `json:"system_namespaces,omitempty"`
	// LogLevel is debug, info, warn, error or none; empty is info.
	LogLevel string `json:"plugin_log_level,omitempty"`
	// Unchained is set where another plugin calls this one by itself, without the result of those before.
	Unchained bool `json:"unchained,omitempty"`
}

// errAway means that nobody has taken the request.
var errAway = errors.New("the CNI agent of this node does not answer")

// ParseConfig reads the network configuration with the result of the plugins before.
func ParseConfig(data []byte) (*Config, *current.Result, error) {
	c := &Config{}
	if err := json.Unmarshal(data, c); err != nil {
		return nil, nil, types.NewError(types.ErrDecodingFailure, "network configuration of istio-cni", err.Error())
	}
	c.Socket = cmp.Or(c.Socket, DefaultSocket)
	if c.RawPrevResult == nil {
		return c, nil, nil
	}
	if err := version.ParsePrevResult(&c.PluginConf); err != nil {
		return nil, nil, types.NewError(types.ErrDecodingFailure, "result of the plugins before istio-cni", err.Error())
	}
	result, err := current.NewResultFromResult(c.PrevResult)
	if err != nil {
		return nil, nil, types.NewError(types.ErrDecodingFailure, "result of the plugins before istio-cni", err.Error())
	}
	return c, result, nil
}

// Add implements the ADD command.
func Add(args *skel.CmdArgs) error {
	c, result, err := ParseConfig(args.StdinData)
	if err != nil {
		return err
	}
	if result == nil && c.Unchained {
		result = &current.Result{CNIVersion: c.CNIVersion} // the agent looks for the addresses itself
		c.PrevResult = result
	}
	if result == nil {
		return types.NewError(types.ErrInvalidNetworkConfig, "istio-cni is a chained plugin: it must follow one that makes the pod's network", "")
	}
	request := requestOf(args)
	for _, ip := range result.IPs {
		request.IPs = append(request.IPs, ip.Address.IP.String())
	}
	j := newJournal(c, os.Stderr)
	defer j.flush()
	if err := c.add(j, request); err != nil {
		return types.NewError(types.ErrTryAgainLater, "pod "+request.PodNamespace+"/"+request.PodName+" must not start outside the mesh", err.Error())
	}
	return types.PrintResult(c.PrevResult, c.CNIVersion)
}

// add tells the agent of a pod. An error means that the pod must not start.
func (c *Config) add(j *journal, request pluginapi.Request) error {
	if !c.concerns(request) {
		j.Debug("CNI ADD passed on", "pod", request.PodNamespace+"/"+request.PodName)
		return nil
	}
	start := time.Now()
	err := ask(c.Socket, pluginapi.PathAdd, request)
	if errors.Is(err, errAway) && slices.Contains(c.SystemNamespaces, request.PodNamespace) {
		j.Warn("a pod of the agent's own namespace starts while there is no agent", "pod", request.PodNamespace+"/"+request.PodName, "error", err.Error())
		return nil
	}
	j.outcome("ADD", request, start, err)
	return err
}

// Del implements the DEL command. It never fails because of the agent: what is gone is gone.
func Del(args *skel.CmdArgs) error {
	c, _, err := ParseConfig(args.StdinData)
	if err != nil {
		return err
	}
	request := requestOf(args)
	if !c.concerns(request) {
		return nil
	}
	j := newJournal(c, os.Stderr)
	defer j.flush()
	start := time.Now()
	j.outcome("DEL", request, start, ask(c.Socket, pluginapi.PathDel, request)) // the agent finds out by the pod's object as well
	return nil
}

// Check implements the CHECK command: the agent repairs by itself what is not in order.
func Check(args *skel.CmdArgs) error {
	_, _, err := ParseConfig(args.StdinData)
	return err
}

// concerns tells whether a request is about a pod that could be enrolled.
func (c *Config) concerns(r pluginapi.Request) bool {
	return r.PodName != "" && r.PodNamespace != "" && !slices.Contains(c.ExcludeNamespaces, r.PodNamespace)
}

// requestOf reads what the container runtime says of the pod.
func requestOf(args *skel.CmdArgs) pluginapi.Request {
	r := pluginapi.Request{Netns: args.Netns, Ifname: args.IfName, ContainerID: args.ContainerID}
	for pair := range strings.SplitSeq(args.Args, ";") {
		key, value, _ := strings.Cut(pair, "=")
		switch key {
		case "K8S_POD_NAME":
			r.PodName = value
		case "K8S_POD_NAMESPACE":
			r.PodNamespace = value
		case "K8S_POD_UID":
			r.PodUID = value
		}
	}
	return r
}

// ask sends a request to the agent.
func ask(socket, path string, request pluginapi.Request) error {
	body, err := json.Marshal(request)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), agentTimeout)
	defer cancel()
	response, err := post(ctx, socket, path, body)
	if err != nil {
		return fmt.Errorf("%w: %w", errAway, err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(io.LimitReader(response.Body, 4<<10))
	if err != nil {
		return fmt.Errorf("answer of the CNI agent: %w", err)
	}
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("the CNI agent of this node: %s", bytes.TrimSpace(text))
	}
	return nil
}

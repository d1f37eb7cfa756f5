package delta

import (
	"bufio"
	"bytes"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	statuspb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
)

const testType = "t"

// TestDialogues runs testdata/*.txt. A script is a list of commands, each at the beginning of a line; the lines after it that
// are indented are what it must answer. "#" starts a comment. Resources are written name@version, followed by ~alias and
// +group in any number; a client's name is the first word of what concerns it.
func TestDialogues(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no dialogues: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			play(t, file, text)
		})
	}
}

func play(t *testing.T, file string, text []byte) {
	d := &dialogue{table: NewTable(), streams: map[string]*Subscription{}, clients: map[string]*Client{}, deliveries: map[string]*Delivery{}}
	var command string
	var at int
	var want []string
	check := func() {
		if command == "" {
			return
		}
		if got := d.run(strings.Fields(command)); !slices.Equal(got, want) {
			t.Errorf("%s:%d: %s\n got: %s\nwant: %s", file, at, command, strings.Join(got, "\n      "), strings.Join(want, "\n      "))
		}
	}
	lines := bufio.NewScanner(bytes.NewReader(text))
	for n := 1; lines.Scan(); n++ {
		line, _, _ := strings.Cut(lines.Text(), "#")
		switch {
		case strings.TrimSpace(line) == "":
		case strings.HasPrefix(line, " "):
			want = append(want, strings.TrimSpace(line))
		default:
			check()
			command, at, want = line, n, nil
		}
	}
	check()
}

// dialogue is the world of one script: a table with streams to it, and clients that talk to nobody.
type dialogue struct {
	table      *Table
	streams    map[string]*Subscription
	clients    map[string]*Client
	deliveries map[string]*Delivery
}

func (d *dialogue) run(words []string) []string {
	verb, args := words[0], words[1:]
	switch verb {
	// server
	case "publish": // publish RESOURCE... -NAME...
		return d.publish(args)
	case "stream": // stream S [implied GROUP...]
		d.streams[args[0]] = NewSubscription(testType, args[min(2, len(args)):]...)
		return nil
	case "request": // request S [sub=a,b] [unsub=a,b] [have=name@version,...] [nonce=N] [error=text]
		return printOutput(d.streams[args[0]].Step(d.table, parseRequest(args[1:])))
	case "advance": // advance S
		return printOutput(d.streams[args[0]].Advance(d.table))
	case "trim": // trim: forget what all streams have
		oldest := d.table.Seq()
		for _, s := range d.streams {
			oldest = min(oldest, s.At())
		}
		d.table.Trim(oldest)
		return []string{fmt.Sprintf("log %d", len(d.table.log))}
	case "status": // status S
		s := d.streams[args[0]].Status()
		return []string{fmt.Sprintf("sent=%s acked=%s nacks=%d error=%q", s.Sent, s.Acked, s.Nacks, s.LastError)}
	// client
	case "client": // client C [ondemand]
		d.clients[args[0]] = NewClient(&corev3.Node{Id: args[0]}, Watch{TypeURL: testType, OnDemand: len(args) > 1})
		return nil
	case "connect":
		return printRequests(d.clients[args[0]].Connected()...)
	case "receive": // receive C nonce=N RESOURCE... -NAME... : what is to be applied
		return d.receive(args[0], args[1:])
	case "apply": // apply C [NAME:reason...]: the answer
		return d.apply(args[0], args[1:])
	case "demand": // demand C NAME
		return d.demand(args[0], args[1])
	case "close": // close C error|quick|eof
		how := map[string]Closed{"error": ClosedError, "quick": ClosedQuick, "eof": ClosedEOF}[args[1]]
		return []string{"wait " + d.clients[args[0]].Closed(how).Round(time.Millisecond).String()}
	}
	return []string{"unknown command " + verb}
}

func (d *dialogue) publish(args []string) []string {
	var changed []Resource
	var removed []string
	for _, a := range args {
		if name, ok := strings.CutPrefix(a, "-"); ok {
			removed = append(removed, name)
			continue
		}
		changed = append(changed, parseResource(a))
	}
	concerned := d.table.Publish(changed, removed)
	return []string{strings.Join(append([]string{"concerns"}, slices.Sorted(maps.Keys(concerned))...), " ")}
}

func parseResource(s string) Resource {
	r := Resource{Any: &anypb.Any{TypeUrl: testType}}
	for strings.ContainsAny(s, "~+") {
		at := strings.LastIndexAny(s, "~+")
		if s[at] == '~' {
			r.Aliases = append(r.Aliases, s[at+1:])
		} else {
			r.Groups = append(r.Groups, s[at+1:])
		}
		s = s[:at]
	}
	slices.Reverse(r.Aliases)
	slices.Reverse(r.Groups)
	r.Name, r.Version, _ = strings.Cut(s, "@")
	r.Any.Value = []byte(r.Version)
	return r
}

func parseRequest(args []string) *discovery.DeltaDiscoveryRequest {
	r := &discovery.DeltaDiscoveryRequest{TypeUrl: testType}
	for _, a := range args {
		k, v, _ := strings.Cut(a, "=")
		switch k {
		case "sub":
			r.ResourceNamesSubscribe = strings.Split(v, ",")
		case "unsub":
			r.ResourceNamesUnsubscribe = strings.Split(v, ",")
		case "have":
			r.InitialResourceVersions = map[string]string{}
			for _, h := range strings.Split(v, ",") {
				name, version, _ := strings.Cut(h, "@")
				r.InitialResourceVersions[name] = version
			}
		case "nonce":
			r.ResponseNonce = v
		case "error":
			r.ErrorDetail = &statuspb.Status{Message: v}
		}
	}
	return r
}

// printOutput decodes what would be on the wire, so that the encoding is part of every dialogue.
func printOutput(out Output) []string {
	var lines []string
	if out.Acked != "" {
		lines = append(lines, "acked "+out.Acked)
	}
	if out.Nack != nil {
		lines = append(lines, "nacked "+out.Nack.Nonce+": "+out.Nack.Message)
	}
	if out.Stale {
		lines = append(lines, "stale")
	}
	if out.Send == nil {
		return lines
	}
	var r discovery.DeltaDiscoveryResponse
	if err := proto.Unmarshal(AppendNonce(slices.Clone(out.Send.Wire(testType, "server")), out.Send.Nonce), &r); err != nil {
		return append(lines, err.Error())
	}
	if r.GetTypeUrl() != testType || r.GetSystemVersionInfo() != "server" {
		return append(lines, "malformed response "+r.String())
	}
	parts := []string{"send " + r.GetNonce() + ":"}
	for _, res := range r.GetResources() {
		s := res.GetName() + "@" + res.GetVersion()
		if got := string(res.GetResource().GetValue()); got != res.GetVersion() || res.GetResource().GetTypeUrl() != testType {
			s += "(content " + got + ")"
		}
		for _, a := range res.GetAliases() {
			s += "~" + a
		}
		parts = append(parts, s)
	}
	for _, name := range r.GetRemovedResources() {
		parts = append(parts, "-"+name)
	}
	return append(lines, strings.Join(parts, " "))
}

func printRequests(requests ...*discovery.DeltaDiscoveryRequest) []string {
	var lines []string
	for _, r := range requests {
		parts := []string{"request"}
		add := func(k, v string) {
			if v != "" {
				parts = append(parts, k+"="+v)
			}
		}
		add("node", r.GetNode().GetId())
		add("sub", strings.Join(r.GetResourceNamesSubscribe(), ","))
		add("unsub", strings.Join(r.GetResourceNamesUnsubscribe(), ","))
		var have []string
		for _, name := range slices.Sorted(maps.Keys(r.GetInitialResourceVersions())) {
			have = append(have, name+"@"+r.GetInitialResourceVersions()[name])
		}
		add("have", strings.Join(have, ","))
		add("nonce", r.GetResponseNonce())
		if e := r.GetErrorDetail(); e != nil {
			add("error", fmt.Sprintf("%d %q", e.GetCode(), e.GetMessage()))
		}
		lines = append(lines, strings.Join(parts, " "))
	}
	return lines
}

func (d *dialogue) receive(client string, args []string) []string {
	r := &discovery.DeltaDiscoveryResponse{TypeUrl: testType}
	for _, a := range args {
		if nonce, ok := strings.CutPrefix(a, "nonce="); ok {
			r.Nonce = nonce
		} else if name, ok := strings.CutPrefix(a, "-"); ok {
			r.RemovedResources = append(r.RemovedResources, name)
		} else {
			res := parseResource(a)
			typeURL := testType
			if res.Version == "othertype" {
				typeURL = "x"
			}
			r.Resources = append(r.Resources, &discovery.Resource{Name: res.Name, Version: res.Version, Aliases: res.Aliases, Resource: &anypb.Any{TypeUrl: typeURL}})
		}
	}
	delivery, err := d.clients[client].Received(r)
	if err != nil {
		return []string{err.Error()}
	}
	d.deliveries[client] = delivery
	parts := []string{"apply"}
	for _, u := range delivery.Updated {
		parts = append(parts, u.Name+"@"+u.Version)
	}
	for _, name := range delivery.Removed {
		parts = append(parts, "-"+name)
	}
	return []string{strings.Join(parts, " ")}
}

func (d *dialogue) apply(client string, args []string) []string {
	var rejected []Rejected
	for _, a := range args {
		name, reason, _ := strings.Cut(a, ":")
		rejected = append(rejected, Rejected{name, reason})
	}
	out := d.clients[client].Apply(d.deliveries[client], rejected)
	lines := printRequests(out.Request)
	if len(out.Woken) > 0 {
		lines = append(lines, "woken "+strings.Join(out.Woken, " "))
	}
	if out.Synced {
		lines = append(lines, "synced")
	}
	return lines
}

func (d *dialogue) demand(client, name string) []string {
	r, known, err := d.clients[client].Demand(testType, name)
	switch {
	case err != nil:
		return []string{err.Error()}
	case known:
		return []string{"known"}
	case r == nil:
		return []string{"waits"}
	}
	return printRequests(r)
}

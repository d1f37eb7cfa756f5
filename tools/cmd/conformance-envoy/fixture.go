package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"sigs.k8s.io/yaml"
)

// fixture is configuration, and requests with what is expected of them.
type fixture struct {
	name   string
	config []string // manifests
	mesh   string   // mesh configuration
	// requests that were written by hand; others are generated from the routes.
	requests []request
	// noGenerated switches those off, for routes that depend on chance.
	noGenerated bool
	// logs compares the lines that the mesh configuration makes the engines log, which begin with the request's key.
	logs bool
	// waypointFor is the label of the waypoint; service when empty.
	waypointFor string
	// world is what of the small world is different.
	world variation
	// proxied is the PROXY header that gateways are sent where a request does not say another one.
	proxied string
	// waypointAnnotations are those of the waypoint's Gateway.
	waypointAnnotations map[string]string
	// random is how many random requests there are, to httpbin.
	random int

	// unready are the ways whose proxies have not got the configuration.
	unready map[string]error
}

// table is the document of a fixture that is no manifest.
type table struct {
	Samples     []string       `json:"samples"` // files of the samples directory
	Mesh        map[string]any `json:"mesh"`
	NoGenerated bool           `json:"noGenerated"`
	Logs        bool           `json:"logs"`
	WaypointFor string         `json:"waypointFor"`
	// WaypointAnnotations are those of the waypoint's Gateway.
	WaypointAnnotations map[string]string `json:"waypointAnnotations"`

	Random  int    `json:"random"`
	Proxied string `json:"proxied"`
	variation
	Requests []request `json:"requests"`
}

// request is one line of the table; tests/conformance/README.md describes its fields.
type request struct {
	Name string `json:"name"`
	// Via is waypoint (default), ingress or gateway.
	Via string `json:"via"`
	// As is the pod that asks; curl by default.
	As string `json:"as"`
	// To is service:port at the waypoint, and a port at a gateway (8080, 80 by default).
	To      string            `json:"to"`
	Method  string            `json:"method"`
	Path    string            `json:"path"`
	Host    string            `json:"host"`
	Headers map[string]string `json:"headers"`
	Body    string            `json:"body"`
	// Claims are signed into a bearer token with the key whose set is {{jwks}} in a fixture.
	Claims map[string]any `json:"claims"`
	H2     bool           `json:"h2"`
	// TLS is the server name of a TLS connection in which the request is sent, ALPN the protocols that are offered.
	TLS  string   `json:"tls"`
	ALPN []string `json:"alpn"`
	// TLSMax is the highest version that the client speaks, Cipher the only suite of TLS 1.2, Certificate the name of its certificate.
	TLSMax      string `json:"tlsMax"`
	Cipher      string `json:"cipher"`
	Certificate string `json:"certificate"`
	// Proxy is the PROXY header before everything: v1 or v2 and two addresses, or own; other text is sent as it is; none.
	Proxy string `json:"proxy"`
	// Repeat is how often the request is sent, Together how many of them at once; the last answer is compared (of requests at
	// once, one of each status), and what Distinct and Statuses say of all. Cookie sends back the cookie that the first answer sets.
	Repeat   int    `json:"repeat"`
	Together int    `json:"together"`
	Cookie   string `json:"cookie"`
	// Met compares which workloads have answered.
	Met bool `json:"met"`
	// Raw is sent as it is.
	Raw string `json:"raw"`
	// Fields are sent as they are over HTTP/2.
	Fields [][2]string `json:"fields"`
	// TCP is sent as a line, and what comes back compared; WebSocket the same after an upgrade.
	TCP       string `json:"tcp"`
	WebSocket string `json:"websocket"`
	Want      want   `json:"want"`
	// Difference says why our engine answers otherwise, as it is documented; Isthmus is what it answers then.
	Difference string `json:"difference"`
	Isthmus    want   `json:"isthmus"`

	logged bool
}

// want is what is expected; empty fields are not looked at.
type want struct {
	Status   int    `json:"status"`
	Workload string `json:"workload"`
	Peer     string `json:"peer"`
	Method   string `json:"method"`
	Path     string `json:"path"`
	Host     string `json:"host"`
	// Headers that the backend saw, and headers of the response; - means that there must be none.
	Headers  map[string]string `json:"headers"`
	Response map[string]string `json:"response"`
	// Log is part of the line in the access log.
	Log string `json:"log"`
	// Body of an answer that the proxy itself gave, or of lines.
	Body     string   `json:"body"`
	Mirrored string   `json:"mirrored"`
	Attempts int      `json:"attempts"`
	MinMS    int      `json:"minMS"`
	MaxMS    int      `json:"maxMS"`
	AnyOf    []string `json:"anyOf"` // workloads
	// Distinct is how many workloads have answered, Statuses which ones there were, sorted, of requests that are repeated.
	Distinct int `json:"distinct"`
	// Shares are how many of them each workload has answered, in percent, give or take a few.
	Shares map[string]int `json:"shares"`
	// Client is the address that the backend was told of by a PROXY header.
	Client   string `json:"client"`
	Statuses []int  `json:"statuses"`
	// TLS is part of the line about the handshake.
	TLS string `json:"tls"`
	// Refused: the connection ends without an answer.
	Refused bool `json:"refused"`
}

func loadFixtures(dir, samples string, only *regexp.Regexp) ([]*fixture, error) {
	files, err := filepath.Glob(filepath.Join(dir, "*.yaml"))
	if err != nil {
		return nil, err
	}
	var out []*fixture
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".yaml")
		if !only.MatchString(name) {
			continue
		}
		f, err := loadFixture(name, file, samples)
		if err != nil {
			return nil, fmt.Errorf("fixture %s: %w", name, err)
		}
		out = append(out, f)
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("there are no fixtures in %s", dir)
	}
	return out, nil
}

func loadFixture(name, file, samples string) (*fixture, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	f := &fixture{name: name}
	for _, doc := range bytes.Split(data, []byte("\n---\n")) {
		var kind struct {
			Kind string `json:"kind"`
		}
		if err := yaml.Unmarshal(doc, &kind); err != nil {
			return nil, err
		}
		if kind.Kind != "" {
			f.config = append(f.config, string(doc))
			continue
		}
		var t table
		if err := yaml.UnmarshalStrict(doc, &t); err != nil {
			return nil, err
		}
		if err := f.add(t, samples); err != nil {
			return nil, err
		}
	}
	for i := range f.requests {
		if f.requests[i].Name == "" {
			f.requests[i].Name = fmt.Sprintf("request %d", i+1)
		}
	}
	return f, nil
}

func (f *fixture) add(t table, samples string) error {
	for _, s := range t.Samples {
		data, err := os.ReadFile(filepath.Join(samples, s))
		if err != nil {
			return err
		}
		f.config = append(f.config, string(data))
	}
	if t.Mesh != nil {
		text, err := yaml.Marshal(t.Mesh)
		if err != nil {
			return err
		}
		f.mesh = string(text)
	}
	f.noGenerated = f.noGenerated || t.NoGenerated
	f.logs = f.logs || t.Logs
	f.random = max(f.random, t.Random)
	f.proxied = orDefault(t.Proxied, f.proxied)
	if len(t.Localities)+len(t.Unready)+len(t.Nodes) > 0 {
		f.world = t.variation
	}
	if t.WaypointAnnotations != nil {
		f.waypointAnnotations = t.WaypointAnnotations
	}
	f.waypointFor = orDefault(t.WaypointFor, f.waypointFor)
	f.requests = append(f.requests, t.Requests...)
	return nil
}

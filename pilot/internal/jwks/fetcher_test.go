package jwks

import (
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/isthmus-mesh/isthmus/pkg/testkit/leak"
)

func TestMain(m *testing.M) { os.Exit(leak.Goroutines(m)) }

// issuer answers by path; it can be changed while it is asked.
type issuer struct {
	mu      sync.Mutex
	answers map[string]*http.Response
	bodies  map[string]string
	asked   []string
}

func (i *issuer) set(url, body, cacheControl string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.bodies == nil {
		i.bodies, i.answers = map[string]string{}, map[string]*http.Response{}
	}
	i.bodies[url] = body
	h := http.Header{}
	if cacheControl != "" {
		h.Set("Cache-Control", cacheControl)
	}
	i.answers[url] = &http.Response{StatusCode: 200, Status: "200 OK", Header: h}
}

func (i *issuer) fail(url string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	delete(i.answers, url)
}

func (i *issuer) count() int {
	i.mu.Lock()
	defer i.mu.Unlock()
	return len(i.asked)
}

func (i *issuer) RoundTrip(r *http.Request) (*http.Response, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.asked = append(i.asked, r.URL.String())
	a := i.answers[r.URL.String()]
	if a == nil {
		return nil, errors.New("nobody there")
	}
	out := *a
	out.Request = r
	out.Body = io.NopCloser(strings.NewReader(i.bodies[r.URL.String()]))
	return &out, nil
}

type published struct {
	mu   sync.Mutex
	docs map[string][]string
}

func (p *published) publish(source, doc string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.docs == nil {
		p.docs = map[string][]string{}
	}
	p.docs[source] = append(p.docs[source], doc)
}

func (p *published) of(source string) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return strings.Join(p.docs[source], " ")
}

const (
	uri = "https://issuer.example/keys"
	a   = `{"keys":[{"kid":"a"}]}`
	b   = `{"keys":[{"kid":"b"}]}`
)

func start(i *issuer, p *published) *Fetcher {
	return New(Config{Client: &http.Client{Transport: i}, Publish: p.publish, Log: slog.New(slog.DiscardHandler)})
}

func TestAChangedDocumentIsPublishedOnceAndTheLastGoodOneStays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i, p := &issuer{}, &published{}
		i.set(uri, a, "")
		f := start(i, p)
		defer f.Close()
		f.Want(map[string]time.Duration{uri: 0})
		synctest.Wait()
		if got := p.of(uri); got != a {
			t.Fatalf("published %q at first", got)
		}
		time.Sleep(41 * time.Minute)
		if n := i.count(); n < 3 || n > 4 {
			t.Errorf("asked %d times in 41 minutes", n)
		}
		i.fail(uri)
		time.Sleep(21 * time.Minute)
		i.set(uri, "<html>", "")
		time.Sleep(21 * time.Minute)
		if got := p.of(uri); got != a {
			t.Errorf("published %q while nothing good was served", got)
		}
		i.set(uri, b, "")
		time.Sleep(21 * time.Minute)
		if got := p.of(uri); got != a+" "+b {
			t.Errorf("published %q", got)
		}
	})
}

func TestAnIssuerThatWasAwayIsAskedAgainSoon(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i, p := &issuer{}, &published{}
		f := start(i, p)
		defer f.Close()
		f.Want(map[string]time.Duration{uri: 0})
		time.Sleep(10 * time.Second)
		i.set(uri, a, "")
		time.Sleep(10 * time.Second)
		if got := p.of(uri); got != a {
			t.Errorf("published %q ten seconds after the issuer came back", got)
		}
	})
}

func TestCacheControlAsksForMoreButNotForTooMuch(t *testing.T) {
	for control, want := range map[string][2]int{"max-age=120": {5, 7}, "no-store": {9, 13}, "max-age=86400, public": {1, 1}} {
		synctest.Test(t, func(t *testing.T) {
			i, p := &issuer{}, &published{}
			i.set(uri, a, control)
			f := start(i, p)
			defer f.Close()
			f.Want(map[string]time.Duration{uri: 0})
			time.Sleep(10*time.Minute + time.Second)
			if n := i.count(); n < want[0] || n > want[1] {
				t.Errorf("%s: asked %d times in ten minutes, want %v", control, n, want)
			}
		})
	}
}

func TestWhatIsNoLongerWantedIsNotFetched(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i, p := &issuer{}, &published{}
		i.set(uri, a, "")
		f := start(i, p)
		defer f.Close()
		f.Want(map[string]time.Duration{uri: 0})
		synctest.Wait()
		f.Want(nil)
		n := i.count()
		time.Sleep(2 * time.Hour)
		if i.count() != n {
			t.Errorf("fetched after it was dropped")
		}
		f.Want(map[string]time.Duration{uri: 0})
		synctest.Wait()
		if got := p.of(uri); got != a+" "+a {
			t.Errorf("published %q: one that is wanted again is published again", got)
		}
	})
}

func TestDiscoveryNamesTheKeys(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const config = "https://issuer.example/.well-known/openid-configuration"
		i, p := &issuer{}, &published{}
		i.set(config, `{"issuer":"https://issuer.example","jwks_uri":"`+uri+`"}`, "")
		i.set(uri, a, "")
		f := start(i, p)
		defer f.Close()
		f.Want(map[string]time.Duration{config: 0})
		synctest.Wait()
		if got := p.of(config); got != a {
			t.Errorf("published %q", got)
		}
	})
}

func TestRefusals(t *testing.T) {
	mux := http.NewServeMux()
	server := httptest.NewServer(mux)
	defer server.Close()
	mux.HandleFunc("/keys", func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, a) })
	mux.HandleFunc("/file", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "file:///etc/passwd", http.StatusFound)
	})
	mux.HandleFunc("/loop", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/loop", http.StatusFound) })
	mux.HandleFunc("/long", func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, a+strings.Repeat(" ", maxDocument)) })
	mux.HandleFunc("/none", func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, `{"keys":[]}`) })
	mux.HandleFunc("/slow", func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	open, closed := NewClient(nil), NewClient([]netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")})
	byDefault := NewClient(Blocked())
	port := server.URL[strings.LastIndexByte(server.URL, ':'):]
	defer open.CloseIdleConnections()
	tests := []struct {
		client *http.Client
		url    string
		want   string
	}{
		{open, server.URL + "/keys", ""},
		{closed, server.URL + "/keys", "is in 127.0.0.0/8"},
		{byDefault, server.URL + "/keys", "is in 127.0.0.0/8"},
		{byDefault, "http://0.0.0.0" + port + "/keys", "is in 0.0.0.0/8"},
		{byDefault, "http://[::ffff:127.0.0.1]" + port + "/keys", "is in 127.0.0.0/8"},
		{byDefault, "http://[::1]" + port + "/keys", "is in ::/127"},
		{byDefault, "http://[fe80::1%25lo]" + port + "/keys", "is in fe80::/10"},
		{byDefault, "http://169.254.169.254/latest/keys", "is in 169.254.0.0/16"},
		{open, server.URL + "/file", "not an http or https URL"},
		{open, server.URL + "/loop", "more than 5 redirects"},
		{open, server.URL + "/long", "longer than"},
		{open, server.URL + "/none", "not a set of keys"},
		{open, server.URL + "/absent", "404"},
		{open, server.URL + "/slow", "deadline exceeded"},
		{open, "gopher://x/keys", "not an http or https URL"},
		{open, "%zz", "parse the URL"},
	}
	for _, tt := range tests {
		patience := time.Minute
		if strings.HasSuffix(tt.url, "/slow") {
			patience = 300 * time.Millisecond
		}
		_, _, err := fetch(t.Context(), tt.client, tt.url, patience)
		if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("fetch %s: %v, want %q", tt.url, err, tt.want)
		}
	}
}

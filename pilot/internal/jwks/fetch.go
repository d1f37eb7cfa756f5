package jwks

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/isthmus-mesh/isthmus/pilot/translate/policy"
)

const maxDocument = 1 << 20

// NewClient returns a client that follows redirects to http and https only and connects to none of the blocked addresses, which a
// URI in somebody's RequestAuthentication could name otherwise.
func NewClient(blocked []netip.Prefix) *http.Client {
	dialer := &net.Dialer{Control: func(_, address string, _ syscall.RawConn) error {
		to, err := netip.ParseAddrPort(address)
		if err != nil {
			return fmt.Errorf("connect to %s: %w", address, err)
		}
		ip := to.Addr().Unmap().WithZone("") // no network contains an address with a zone
		for _, b := range blocked {
			if b.Contains(ip) {
				return fmt.Errorf("%s is in %s, where keys are not fetched from", to.Addr(), b)
			}
		}
		return nil
	}}
	return &http.Client{
		Transport: &http.Transport{
			DialContext:           dialer.DialContext,
			ForceAttemptHTTP2:     true,
			MaxIdleConns:          10,
			IdleConnTimeout:       time.Minute,
			TLSHandshakeTimeout:   10 * time.Second,
			ResponseHeaderTimeout: time.Minute,
		},
		CheckRedirect: func(r *http.Request, via []*http.Request) error {
			if len(via) >= 5 {
				return errors.New("more than 5 redirects")
			}
			return checkURL(r.URL)
		},
	}
}

// Blocked are the networks that no key set comes from unless the operator says otherwise: this machine, whose debug pages believe
// who is here, and link-local addresses, where clouds keep credentials. Connections to the unspecified address are to this machine.
func Blocked() []netip.Prefix {
	return []netip.Prefix{
		netip.MustParsePrefix("0.0.0.0/8"), netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("169.254.0.0/16"),
		netip.MustParsePrefix("::/127"), netip.MustParsePrefix("fe80::/10"),
	}
}

func checkURL(u *url.URL) error {
	if u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return fmt.Errorf("%s is not an http or https URL", u.Redacted())
	}
	return nil
}

// fetch gets a key set, by way of the issuer's configuration when that is the source. maxAge is how long the server lets it be kept;
// it is a day when the server does not say.
func fetch(ctx context.Context, client *http.Client, source string, timeout time.Duration) (document string, maxAge time.Duration, err error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	from := source
	if policy.IsDiscovery(source) {
		body, _, err := get(ctx, client, source)
		if err != nil {
			return "", 0, err
		}
		var config struct {
			URI string `json:"jwks_uri"`
		}
		if err := json.Unmarshal(body, &config); err != nil || config.URI == "" {
			return "", 0, fmt.Errorf("%s does not say where the keys are (jwks_uri)", source)
		}
		from = config.URI
	}
	body, maxAge, err := get(ctx, client, from)
	if err != nil {
		return "", 0, err
	}
	var set struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if err := json.Unmarshal(body, &set); err != nil || len(set.Keys) == 0 {
		return "", 0, fmt.Errorf("what %s serves is not a set of keys", from)
	}
	return string(body), maxAge, nil
}

func get(ctx context.Context, client *http.Client, from string) (body []byte, maxAge time.Duration, err error) {
	u, err := url.Parse(from)
	if err != nil {
		return nil, 0, fmt.Errorf("parse the URL of keys: %w", err)
	}
	if err := checkURL(u); err != nil {
		return nil, 0, err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, 0, fmt.Errorf("ask %s: %w", u.Redacted(), err)
	}
	request.Header.Set("Accept", "application/json")
	response, err := client.Do(request)
	if err != nil {
		return nil, 0, fmt.Errorf("fetch keys: %w", err)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return nil, 0, fmt.Errorf("fetch keys: %s answers %s", u.Redacted(), response.Status)
	}
	body, err = io.ReadAll(io.LimitReader(response.Body, maxDocument+1))
	switch {
	case err != nil:
		return nil, 0, fmt.Errorf("read keys from %s: %w", u.Redacted(), err)
	case len(body) > maxDocument:
		return nil, 0, fmt.Errorf("what %s serves is longer than %d bytes", u.Redacted(), maxDocument)
	}
	return body, cacheTime(response.Header), nil
}

// cacheTime reads Cache-Control.
func cacheTime(h http.Header) time.Duration {
	for _, directive := range strings.Split(strings.Join(h.Values("Cache-Control"), ","), ",") {
		name, value, _ := strings.Cut(strings.ToLower(strings.TrimSpace(directive)), "=")
		switch name {
		case "no-store", "no-cache":
			return 0
		case "max-age":
			if seconds, err := strconv.ParseUint(strings.Trim(value, `"`), 10, 31); err == nil {
				return time.Duration(seconds) * time.Second
			}
		}
	}
	return 24 * time.Hour
}

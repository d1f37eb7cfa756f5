package peer

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"
)

// maxBody bounds what is read of a peer's answer.
const maxBody = 1 << 20

// Client calls other services, each answer a JSON document.
type Client struct {
	http *http.Client
}

// NewClient returns a client over t; Transport() is the one for production.
func NewClient(t http.RoundTripper) *Client {
	return &Client{http: &http.Client{Transport: t}}
}

// Transport returns a transport that opens one connection per request: where
// only layer 4 balances, a kept connection would pin all requests to one pod,
// and reloading the page would never show another version. It takes no proxy
// from the environment, for peers are inside the mesh.
func Transport() http.RoundTripper {
	return &http.Transport{
		DialContext:       (&net.Dialer{Timeout: 10 * time.Second}).DialContext,
		DisableKeepAlives: true,
	}
}

// Get fetches url with the given headers. A peer that answered yields its
// status, whatever it is, and the body where the status is 200; an error means
// that there was no usable answer within timeout.
func (c *Client) Get(ctx context.Context, url string, header http.Header, timeout time.Duration) (int, json.RawMessage, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0, nil, fmt.Errorf("build request to %s: %w", url, err)
	}
	req.Header = header.Clone()
	res, err := c.http.Do(req)
	if err != nil {
		return 0, nil, fmt.Errorf("call %s: %w", url, err)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return res.StatusCode, nil, nil
	}
	body, err := io.ReadAll(io.LimitReader(res.Body, maxBody))
	if err != nil {
		return 0, nil, fmt.Errorf("read answer of %s: %w", url, err)
	}
	if !json.Valid(body) {
		return 0, nil, fmt.Errorf("answer of %s is not valid JSON", url)
	}
	return res.StatusCode, body, nil
}

package kindnetlite

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// APIServer reads nodes with the credentials of a pod's service account.
type APIServer struct {
	base   string
	token  string // path: the kubelet replaces the token in it
	client *http.Client
}

// NewAPIServer talks to host:port, trusting the cluster's authority in the folder of the service account.
func NewAPIServer(endpoint, account string) (*APIServer, error) {
	ca, err := os.ReadFile(filepath.Join(account, "ca.crt"))
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(ca) {
		return nil, fmt.Errorf("no certificate in %s/ca.crt", account)
	}
	return &APIServer{
		base:  "https://" + endpoint,
		token: filepath.Join(account, "token"),
		client: &http.Client{
			Timeout:   10 * time.Second,
			Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}},
		},
	}, nil
}

// Nodes lists the cluster's nodes.
func (a *APIServer) Nodes(ctx context.Context) ([]Node, error) {
	token, err := os.ReadFile(a.token)
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, a.base+"/api/v1/nodes", nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Authorization", "Bearer "+strings.TrimSpace(string(token)))
	resp, err := a.client.Do(req)
	if err != nil {
		return nil, fmt.Errorf("list nodes: %w", err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, fmt.Errorf("list nodes: %w", err)
	}
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("list nodes: %s: %.200s", resp.Status, body)
	}
	return parseNodes(body)
}

func parseNodes(body []byte) ([]Node, error) {
	var list struct {
		Items []struct {
			Metadata struct {
				Name string `json:"name"`
			} `json:"metadata"`
			Spec struct {
				PodCIDRs []netip.Prefix `json:"podCIDRs"`
			} `json:"spec"`
			Status struct {
				Addresses []struct {
					Type    string `json:"type"`
					Address string `json:"address"`
				} `json:"addresses"`
			} `json:"status"`
		} `json:"items"`
	}
	if err := json.Unmarshal(body, &list); err != nil {
		return nil, fmt.Errorf("parse nodes: %w", err)
	}
	var out []Node
	for _, item := range list.Items {
		n := Node{Name: item.Metadata.Name, PodCIDRs: item.Spec.PodCIDRs}
		for _, a := range item.Status.Addresses {
			if ip, err := netip.ParseAddr(a.Address); err == nil && a.Type == "InternalIP" {
				n.IPs = append(n.IPs, ip)
			}
		}
		out = append(out, n)
	}
	return out, nil
}

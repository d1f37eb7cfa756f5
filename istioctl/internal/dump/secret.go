package dump

import (
	"bytes"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"slices"
	"strconv"
	"time"
)

const certTime = "2006-01-02T15:04:05Z"

// Secrets are the secrets whole, without what is secret of them.
func (e *Envoy) Secrets() []any {
	out := []any{}
	for _, r := range e.secrets {
		out = append(out, r.entry)
	}
	return out
}

// SecretTable shows the certificates of a proxy; whether they are valid is asked at a time.
func (e *Envoy) SecretTable(now time.Time) *Table {
	t := &Table{Columns: []string{"RESOURCE NAME", "TYPE", "STATUS", "VALID CERT", "SERIAL NUMBER", "NOT AFTER", "NOT BEFORE"}, Gap: 5}
	trust := false
	for _, r := range e.secrets {
		if len(trustBundles(r.body)) > 0 {
			trust = true
		}
	}
	if trust {
		t.Columns = append(t.Columns, "TRUST DOMAIN")
	}
	for _, r := range e.secrets {
		rows := secretRows(r, now)
		for _, row := range rows {
			t.Rows = append(t.Rows, row[:len(t.Columns)])
		}
	}
	return t
}

// secretRows has all eight columns.
func secretRows(r resource, now time.Time) [][]string {
	row := func(kind string, chain []*x509.Certificate, domain string) []string {
		out := []string{r.name, kind, r.state, "false", "", "", "", domain}
		if len(chain) > 0 {
			c := chain[0]
			out[3], out[4] = strconv.FormatBool(validAt(c, now)), c.SerialNumber.Text(16)
			out[5], out[6] = c.NotAfter.UTC().Format(certTime), c.NotBefore.UTC().Format(certTime)
		}
		return out
	}
	var rows [][]string
	if chain := at(r.body, "tlsCertificate", "certificateChain"); chain != nil {
		rows = append(rows, row("Cert Chain", certificates(chain), ""))
	}
	for _, b := range trustBundles(r.body) {
		for _, c := range certificates(at(b, "trustBundle")) {
			rows = append(rows, row("CA", []*x509.Certificate{c}, text(b, "name")))
		}
	}
	if ca := at(r.body, "validationContext", "trustedCa"); ca != nil && len(rows) == 0 {
		roots := certificates(ca)
		for _, c := range roots {
			rows = append(rows, row("CA", []*x509.Certificate{c}, ""))
		}
		if len(roots) == 0 {
			rows = append(rows, row("CA", nil, ""))
		}
	}
	if len(rows) == 0 {
		rows = append(rows, row("", nil, ""))
	}
	return rows
}

// trustBundles are the roots by trust domain.
func trustBundles(secret tree) []any {
	return list(secret, "validationContext", "customValidatorConfig", "typedConfig", "trustDomains")
}

func validAt(c *x509.Certificate, now time.Time) bool {
	return !now.Before(c.NotBefore) && !now.After(c.NotAfter)
}

// certificates reads the certificates of a data source that has them inline.
func certificates(source tree) []*x509.Certificate {
	data := []byte(text(source, "inlineString"))
	if raw, err := base64.StdEncoding.DecodeString(text(source, "inlineBytes")); err == nil && len(raw) > 0 {
		data = raw
	}
	return parsePEM(data)
}

func parsePEM(data []byte) []*x509.Certificate {
	var out []*x509.Certificate
	for len(bytes.TrimSpace(data)) > 0 {
		var block *pem.Block
		if block, data = pem.Decode(data); block == nil {
			break
		}
		if c, err := x509.ParseCertificate(block.Bytes); err == nil && block.Type == "CERTIFICATE" {
			out = append(out, c)
		}
	}
	return out
}

// Roots are the certificates that the proxy trusts, as PEM, in order.
func (e *Envoy) Roots() []string {
	var out []string
	for _, r := range e.secrets {
		if r.name != "ROOTCA" {
			continue
		}
		sources := []any{at(r.body, "validationContext", "trustedCa")}
		for _, b := range trustBundles(r.body) {
			sources = append(sources, at(b, "trustBundle"))
		}
		for _, source := range sources {
			for _, c := range certificates(source) {
				out = append(out, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})))
			}
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

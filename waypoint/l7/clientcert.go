package l7

import (
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
)

const clientCertHeader = "x-forwarded-client-cert"

// certDetails are what of a client's certificate is passed on, beside its hash.
type certDetails struct{ cert, subject, uri, dns bool }

// clientCertificate makes the header that says who the client is what the manager says: what a client says of itself is passed on only
// where it has proven who it is, or always.
func (o *managerOptions) clientCertificate(r *Request) {
	hdr := &r.Head.Header
	if o.forwardCert == hcmv3.HttpConnectionManager_ALWAYS_FORWARD_ONLY {
		return
	}
	if o.forwardCert == hcmv3.HttpConnectionManager_SANITIZE || r.Conn.Peer == nil {
		hdr.Del(clientCertHeader)
		return
	}
	switch o.forwardCert {
	case hcmv3.HttpConnectionManager_SANITIZE_SET:
		hdr.Set(clientCertHeader, r.Scratch.Keep(o.certDetails.append(r.Scratch.Bytes(), r.Conn.Peer)))
	case hcmv3.HttpConnectionManager_APPEND_FORWARD:
		b := r.Scratch.Bytes()
		if said, ok := hdr.Joined(clientCertHeader); ok {
			b = append(append(b, said...), ',')
		}
		hdr.Set(clientCertHeader, r.Scratch.Keep(o.certDetails.append(b, r.Conn.Peer)))
	}
}

func (d certDetails) append(b []byte, p *Peer) []byte {
	for _, u := range p.By {
		b = append(append(append(b, "By="...), u...), ';')
	}
	b = append(append(b, "Hash="...), p.Hash...)
	if d.cert {
		b = append(append(append(b, ";Cert=\""...), p.Certificate...), '"')
	}
	if d.subject {
		b = append(append(append(b, ";Subject=\""...), p.Subject...), '"')
	}
	if d.uri {
		if len(p.URIs) == 0 {
			b = append(b, ";URI="...)
		}
		for _, u := range p.URIs {
			b = append(append(b, ";URI="...), u...)
		}
	}
	if d.dns {
		for _, name := range p.DNS {
			b = append(append(b, ";DNS="...), name...)
		}
	}
	return b
}

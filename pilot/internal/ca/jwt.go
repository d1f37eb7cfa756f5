package ca

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
)

const (
	// maxToken is the size above which a token is not even parsed, in bytes.
	maxToken = 16 << 10
	// keysRecheck is how often the key file is read again at the most because of a key that is not in it.
	keysRecheck = time.Second
	// leeway for clocks that differ.
	leeway = 10 * time.Second
)

// signatures are the algorithms of asymmetric keys; none and the symmetric ones are not among them.
func signatures() []jose.SignatureAlgorithm {
	return []jose.SignatureAlgorithm{jose.RS256, jose.RS384, jose.RS512, jose.PS256, jose.PS384, jose.PS512, jose.ES256, jose.ES384, jose.ES512, jose.EdDSA}
}

// JWT accepts ServiceAccount tokens that are signed with the keys of a file.
type JWT struct {
	file, issuer string
	audiences    []string
	now          func() time.Time

	mu     sync.Mutex // guards what follows
	keys   jose.JSONWebKeySet
	stamp  time.Time // modification time of what was read
	looked time.Time
}

// NewJWT accepts tokens of issuer for any of the audiences, signed with the keys (a JWKS) in file.
func NewJWT(file, issuer string, audiences []string) *JWT {
	return &JWT{file: file, issuer: issuer, audiences: audiences, now: time.Now}
}

// claims of a ServiceAccount token that is bound to a pod.
type claims struct {
	jwt.Claims
	Kubernetes struct {
		Namespace string `json:"namespace"`
		Pod       struct {
			Name string `json:"name"`
			UID  string `json:"uid"`
		} `json:"pod"`
		ServiceAccount struct {
			Name string `json:"name"`
		} `json:"serviceaccount"`
		Node struct {
			Name string `json:"name"`
		} `json:"node"`
	} `json:"kubernetes.io"`
}

// Authenticate implements Authenticator.
func (j *JWT) Authenticate(ctx context.Context) (Caller, error) {
	token, err := bearer(ctx)
	if err != nil {
		return Caller{}, err
	}
	caller, err := j.verify(token)
	if err != nil {
		return Caller{}, fmt.Errorf("token: %w", err)
	}
	caller.ClusterID = clusterOf(ctx)
	return caller, nil
}

// verify never puts the token into an error.
func (j *JWT) verify(token string) (Caller, error) {
	if len(token) > maxToken {
		return Caller{}, fmt.Errorf("longer than %d bytes", maxToken)
	}
	return verifySigned(token, j.keysFor, jwt.Expected{Issuer: j.issuer, AnyAudience: j.audiences, Time: j.now()})
}

// verifySigned checks signature, issuer, audience and time of a token, and reads who it speaks for. keysFor gives the keys with an ID,
// or all that there are for the empty one. No error has the token in it.
func verifySigned(token string, keysFor func(id string) ([]jose.JSONWebKey, error), expected jwt.Expected) (Caller, error) {
	parsed, err := jwt.ParseSigned(token, signatures())
	if err != nil {
		return Caller{}, errors.New("not a signed JWT with an asymmetric key")
	}
	if len(parsed.Headers) != 1 {
		return Caller{}, errors.New("want one signature")
	}
	keys, err := keysFor(parsed.Headers[0].KeyID)
	if err != nil {
		return Caller{}, err
	}
	var c claims
	verified := false
	for _, key := range keys {
		if key.IsPublic() && (key.Use == "" || key.Use == "sig") && parsed.Claims(key.Key, &c) == nil {
			verified = true
			break
		}
	}
	if !verified {
		return Caller{}, errors.New("the signature is of none of the keys")
	}
	if c.Expiry == nil {
		return Caller{}, errors.New("it never expires")
	}
	if err := c.ValidateWithLeeway(expected, leeway); err != nil {
		return Caller{}, err
	}
	return callerOf(&c)
}

// callerOf reads who the token speaks for; subject and claims must agree.
func callerOf(c *claims) (Caller, error) {
	parts := strings.Split(c.Subject, ":")
	if len(parts) != 4 || parts[0] != "system" || parts[1] != "serviceaccount" || parts[2] == "" || parts[3] == "" {
		return Caller{}, fmt.Errorf("subject %q is no service account", c.Subject)
	}
	k := c.Kubernetes
	if k.Namespace != "" && k.Namespace != parts[2] || k.ServiceAccount.Name != "" && k.ServiceAccount.Name != parts[3] {
		return Caller{}, errors.New("subject and kubernetes.io claims differ")
	}
	return Caller{Namespace: parts[2], ServiceAccount: parts[3], PodName: k.Pod.Name, PodUID: k.Pod.UID, Node: k.Node.Name}, nil
}

// keysFor returns the keys with an ID, or all for a token that names none. The file is read again when it has changed.
func (j *JWT) keysFor(id string) ([]jose.JSONWebKey, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	found := j.keys.Key(id)
	if id == "" {
		found = slices.Clone(j.keys.Keys)
	}
	if now := j.now(); len(found) == 0 || now.Sub(j.looked) >= keysRecheck {
		j.looked = now
		// A file that is gone or half written for a moment does not make the keys bad that were read before.
		if err := j.readLocked(); err != nil && len(found) == 0 {
			return nil, err
		}
		found = j.keys.Key(id)
		if id == "" {
			found = slices.Clone(j.keys.Keys)
		}
	}
	if len(found) == 0 {
		return nil, fmt.Errorf("key %q is not among those of %s", id, j.file)
	}
	return found, nil
}

func (j *JWT) readLocked() error {
	info, err := os.Stat(j.file)
	if err != nil {
		return fmt.Errorf("keys of tokens: %w", err)
	}
	if info.ModTime().Equal(j.stamp) && len(j.keys.Keys) > 0 {
		return nil
	}
	data, err := os.ReadFile(j.file)
	if err != nil {
		return fmt.Errorf("keys of tokens: %w", err)
	}
	var keys jose.JSONWebKeySet
	if err := json.Unmarshal(data, &keys); err != nil {
		return fmt.Errorf("keys of tokens in %s: %w", j.file, err)
	}
	j.keys, j.stamp = keys, info.ModTime()
	return nil
}

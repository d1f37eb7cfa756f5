package trust

import (
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/isthmus-mesh/isthmus/waypoint/l7"
)

// check is how often files are looked at, at the most.
const check = time.Second

// forgotten is after which time files that nobody asks for are not kept any more.
const forgotten = time.Hour

// Files keeps authorities and lists of revoked certificates that are in files, which are read again when they change. What was read before
// stays in force while they are gone, half written or wrong. The zero value is ready. Safe for concurrent use.
type Files struct {
	Log *slog.Logger // nil is nobody

	mu sync.Mutex // guards of
	of map[Names]*kept
}

// Names are two files in PEM, of which one may be "".
type Names struct {
	Authorities, Lists string
	// LeafOnly is whether lists are needed for the certificates of peers only.
	LeafOnly bool
}

// kept is what two files had when they were good.
type kept struct {
	used, looked time.Time
	stamps       [2]stamp
	good         *l7.Authorities // nil before
	failed       string          // what was reported
}

// stamp tells one version of a file from another.
type stamp struct {
	at   time.Time
	size int64
}

// Read returns what is in the files. Without a file of authorities the result has lists only.
func (f *Files) Read(names Names, now time.Time) (*l7.Authorities, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	k := f.keepLocked(names, now)
	if k.good != nil && now.Sub(k.looked) < check {
		return k.good, nil
	}
	stamps := [2]stamp{stampOf(names.Authorities), stampOf(names.Lists)}
	if k.good != nil && stamps == k.stamps {
		k.looked = now
		return k.good, nil
	}
	next, err := read(names)
	switch {
	case err == nil:
		if k.good != nil || k.failed != "" {
			f.log().Info("certificates of authorities replaced", "file", names.Authorities, "lists", names.Lists)
		}
		k.good, k.stamps, k.looked, k.failed = next, stamps, now, ""
	case k.good == nil:
		return nil, err
	default:
		if k.failed != err.Error() {
			k.failed = err.Error()
			f.log().Error("the last good certificates of authorities and lists of revoked ones stay in force", "error", err)
		}
		k.looked = now
	}
	return k.good, nil
}

func (f *Files) log() *slog.Logger {
	if f.Log == nil {
		return slog.New(slog.DiscardHandler)
	}
	return f.Log
}

// keepLocked finds what is kept of files, and drops what nobody asks for.
func (f *Files) keepLocked(names Names, now time.Time) *kept {
	k := f.of[names]
	if k == nil {
		if f.of == nil {
			f.of = map[Names]*kept{}
		}
		for other, old := range f.of {
			if now.Sub(old.used) > forgotten {
				delete(f.of, other)
			}
		}
		k = &kept{}
		f.of[names] = k
	}
	k.used = now
	return k
}

func stampOf(name string) stamp {
	info, err := os.Stat(name)
	if name == "" || err != nil {
		return stamp{}
	}
	return stamp{info.ModTime(), info.Size()}
}

func read(names Names) (*l7.Authorities, error) {
	var lists []byte
	if names.Lists != "" {
		var err error
		if lists, err = os.ReadFile(names.Lists); err != nil {
			return nil, fmt.Errorf("lists of revoked certificates: %w", err)
		}
	}
	out := &l7.Authorities{LeafOnly: names.LeafOnly}
	if names.Authorities != "" {
		trusted, err := os.ReadFile(names.Authorities)
		if err != nil {
			return nil, fmt.Errorf("trusted authorities: %w", err)
		}
		if out, err = l7.ParseAuthorities(trusted, nil); err != nil {
			return nil, fmt.Errorf("trusted authorities in %s: %w", names.Authorities, err)
		}
		out.LeafOnly = names.LeafOnly
	}
	if names.Lists == "" {
		return out, nil
	}
	var err error
	if out.Revoked, err = l7.ParseRevoked(lists); err != nil {
		return nil, fmt.Errorf("lists of revoked certificates in %s: %w", names.Lists, err)
	}
	if len(out.Certs) > 0 && !out.LeafOnly {
		if err := out.Revoked.Belongs(out.Certs); err != nil {
			return nil, fmt.Errorf("lists of revoked certificates in %s: %w: put those of the authorities in %s there", names.Lists, err, names.Authorities)
		}
	}
	return out, nil
}

package app

import (
	"context"
	"time"

	"github.com/fsnotify/fsnotify"

	"github.com/isthmus-mesh/isthmus/cni/internal/install"
)

// repairEvery is how often the installation is looked at, besides whenever its directories change.
const repairEvery = 2 * time.Second

func (d *daemon) installation() install.Options {
	o := install.Options{
		Source: d.cfg.Install.Source, BinDir: d.cfg.Install.BinDir, NetDir: d.cfg.Install.NetDir, ConfName: d.cfg.Install.ConfName,
		Unchained: d.cfg.Install.Unchained, Owned: d.cfg.Install.Owned, OwnedName: d.cfg.Install.OwnedName,
		Socket: d.cfg.PluginSocket, ExcludeNamespaces: d.cfg.ExcludeNamespaces, LogLevel: d.level,
	}
	if d.cfg.PodNamespace != "" {
		o.SystemNamespaces = []string{d.cfg.PodNamespace}
	}
	return o
}

// keepInstalled installs the plugin, and repairs the installation when another one rewrites the configuration.
func (d *daemon) keepInstalled(ctx context.Context) {
	if d.cfg.Install.Source == "" {
		d.installed.Store(true)
		return
	}
	watcher, err := fsnotify.NewWatcher()
	var changes <-chan fsnotify.Event
	if err == nil {
		defer watcher.Close()
		changes = watcher.Events
		for _, dir := range []string{d.cfg.Install.NetDir, d.cfg.Install.BinDir} {
			if err := watcher.Add(dir); err != nil {
				d.cfg.Log.Info("directory not watched; looked at now and then", "directory", dir, "error", err)
			}
		}
	}
	ticker := time.NewTicker(repairEvery)
	defer ticker.Stop()
	problem := "not looked at yet"
	for {
		problem = d.installOnce(problem)
		select {
		case <-changes:
			d.gather(ctx, changes)
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
	}
}

// gather waits until what is being written is complete.
func (d *daemon) gather(ctx context.Context, changes <-chan fsnotify.Event) {
	quiet := time.NewTimer(20 * time.Millisecond)
	defer quiet.Stop()
	for {
		select {
		case <-changes:
		case <-quiet.C:
			return
		case <-ctx.Done():
			return
		}
	}
}

// installOnce brings the installation into order. It takes and returns what was wrong the last time, "" if nothing.
func (d *daemon) installOnce(before string) (problem string) {
	err := install.Binary(d.installation())
	changed := false
	if err == nil {
		changed, err = install.Configure(d.installation())
	}
	if err == nil {
		err = install.Validate(d.installation())
	}
	d.installed.Store(err == nil)
	if err != nil {
		d.readiness.Set(0)
		if err.Error() != before {
			d.installs.WithLabelValues("ERROR").Inc()
			d.cfg.Log.Warn("CNI plugin not installed; trying again", "error", err)
		}
		return err.Error()
	}
	d.readiness.Set(1)
	if changed || before != "" {
		d.installs.WithLabelValues("SUCCESS").Inc()
		d.cfg.Log.Info("CNI plugin installed", "configuration", d.cfg.Install.NetDir)
	}
	return ""
}

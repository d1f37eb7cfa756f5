package cli

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"sigs.k8s.io/yaml"
)

// FromEnvironment sets flags that the command line does not set from ISTIOCTL_NAME.
func FromEnvironment(flags *pflag.FlagSet, lookup func(string) (string, bool)) error {
	var problems []error
	flags.VisitAll(func(f *pflag.Flag) {
		name := "ISTIOCTL_" + strings.ToUpper(strings.ReplaceAll(f.Name, "-", "_"))
		if value, ok := lookup(name); ok && !f.Changed {
			if err := flags.Set(f.Name, value); err != nil {
				problems = append(problems, fmt.Errorf("environment variable %s: %w", name, err))
			}
		}
	})
	return errors.Join(problems...)
}

// FromFile sets flags of the command that neither the command line nor the environment sets from $ISTIOCONFIG, or
// $HOME/.istioctl/config.yaml: a map from names of flags to values. It may name flags of other commands, but none that there are not.
func FromFile(cmd *cobra.Command, lookup func(string) (string, bool)) error {
	path, ok := lookup("ISTIOCONFIG")
	if !ok {
		home, _ := os.UserHomeDir() // nobody's home has no settings
		path = filepath.Join(home, ".istioctl", "config.yaml")
	}
	data, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) && !ok {
		return nil
	}
	if err != nil {
		return fmt.Errorf("settings: %w", err)
	}
	values := map[string]any{}
	if err := yaml.Unmarshal(data, &values); err != nil {
		return fmt.Errorf("settings in %s: %w", path, err)
	}
	var problems []error
	for key, value := range values {
		if err := setting(cmd, key, fmt.Sprint(value)); err != nil {
			problems = append(problems, fmt.Errorf("settings in %s: %w", path, err))
		}
	}
	return errors.Join(problems...)
}

// plainName makes names alike that differ in how words are joined.
func plainName(name string) string {
	return strings.ToLower(strings.NewReplacer("-", "", "_", "").Replace(name))
}

func setting(cmd *cobra.Command, key, value string) error {
	var flag *pflag.Flag
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		if plainName(f.Name) == plainName(key) {
			flag = f
		}
	})
	switch {
	case flag == nil && !known(cmd.Root(), key):
		return fmt.Errorf("%s: no command has a flag --%s", key, key)
	case flag == nil || flag.Changed:
		return nil
	}
	if err := cmd.Flags().Set(flag.Name, value); err != nil {
		return fmt.Errorf("%s: %w", key, err)
	}
	return nil
}

// known tells whether a command or one below it has a flag.
func known(cmd *cobra.Command, key string) bool {
	found := false
	look := func(f *pflag.Flag) { found = found || plainName(f.Name) == plainName(key) }
	cmd.Flags().VisitAll(look)
	cmd.PersistentFlags().VisitAll(look)
	for _, sub := range cmd.Commands() {
		found = found || known(sub, key)
	}
	return found
}

// GlobalsLast puts global flags that come before the command behind it, where they are known: istioctl -n shop proxy-status.
func GlobalsLast(args []string) []string {
	flags := pflag.NewFlagSet("", pflag.ContinueOnError)
	(&Globals{}).Add(flags)
	var moved []string
	for len(args) > 0 {
		arg := args[0]
		f := globalFlag(flags, arg)
		if f == nil {
			break
		}
		n := 1
		// The value is the next argument, unless it is part of this one.
		if !strings.Contains(arg, "=") && (strings.HasPrefix(arg, "--") || len(arg) == 2) && f.NoOptDefVal == "" {
			n = 2
		}
		if len(args) < n {
			break
		}
		moved, args = append(moved, args[:n]...), args[n:]
	}
	if len(moved) == 0 || len(args) == 0 {
		return append(moved, args...)
	}
	// Behind the name of the command, before what is the command of somebody else.
	end := len(args)
	for i, arg := range args {
		if arg == "--" {
			end = i
			break
		}
	}
	return append(append(append([]string{}, args[:end]...), moved...), args[end:]...)
}

func globalFlag(flags *pflag.FlagSet, arg string) *pflag.Flag {
	if name, long := strings.CutPrefix(arg, "--"); long {
		name, _, _ = strings.Cut(name, "=")
		return flags.Lookup(name)
	}
	if len(arg) >= 2 && arg[0] == '-' {
		return flags.ShorthandLookup(arg[1:2])
	}
	return nil
}

package serve

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"syscall"
)

// Program is one sample server: its name, the port used without an argument,
// and how its handler is made.
type Program struct {
	Name        string
	DefaultPort string
	Handler     func(log *slog.Logger) (http.Handler, error)
}

// Main runs p until SIGTERM or SIGINT. args are the command line without the
// program's name: nothing, or one port. It returns the exit code.
func Main(p Program, args []string, stdout, stderr io.Writer) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := Run(ctx, p, args, stdout); err != nil {
		fmt.Fprintf(stderr, "%s: %v\n", p.Name, err)
		return 1
	}
	return 0
}

// Run is Main without the signals: it ends when ctx does.
func Run(ctx context.Context, p Program, args []string, stdout io.Writer) error {
	port, err := parsePort(p, args)
	if err != nil {
		return err
	}
	log := slog.New(slog.NewTextHandler(stdout, nil)).With("app", p.Name)
	h, err := p.Handler(log)
	if err != nil {
		return err
	}
	l, err := Listen(ctx, port)
	if err != nil {
		return err
	}
	return HTTP(ctx, l, h, log)
}

func parsePort(p Program, args []string) (string, error) {
	switch len(args) {
	case 0:
		return p.DefaultPort, nil
	case 1:
		n, err := strconv.ParseUint(args[0], 10, 16)
		if err != nil {
			return "", fmt.Errorf("port %q: want a number up to 65535; usage: %s [port]", args[0], p.Name)
		}
		return strconv.FormatUint(n, 10), nil
	default:
		return "", fmt.Errorf("%d arguments given; usage: %s [port]", len(args), p.Name)
	}
}

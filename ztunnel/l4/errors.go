package l4

import (
	"errors"
	"fmt"
)

var errEmptyAddress = errors.New("address is neither a workload nor a service")

func errUnexpectedType(typeURL string) error {
	return fmt.Errorf("resource has the unexpected type %q", typeURL)
}

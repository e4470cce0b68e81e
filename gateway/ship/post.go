package ship

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strconv"
	"time"
)

const (
	eventsPath = "/api/v1/usage/events"
	// postTimeout is long: a node answers only when the events are durable.
	postTimeout    = 15 * time.Second
	answerBytesMax = 4 << 20
)

// Destination is where events go.
type Destination struct {
	// Endpoints are base URLs of nodes, without a slash at the end; any of them will do.
	Endpoints []string
	Token     string
}

// verdict is what a node said about a batch that it took.
type verdict struct {
	Accepted   int        `json:"accepted"`
	Duplicates int        `json:"duplicates"`
	Rejected   []rejected `json:"rejected"`
}

type rejected struct {
	ID     string `json:"id"`
	Code   string `json:"code"`
	Detail string `json:"detail"`
}

// refusedError is an answer other than 200.
type refusedError struct {
	status int
	// after is how long the node asks to wait, 0 when it does not say.
	after time.Duration
	// problem says that the answer is a problem document, as all of a node's refusals are.
	problem bool
}

func (e *refusedError) Error() string { return fmt.Sprintf("a node answered %d", e.status) }

// content says that the batch itself is wrong or too large: sent again it would be refused again.
// Events are dropped for it, so it is believed of a node alone: a proxy or a server that took the
// node's place may answer 400 to everything. Too large it may be for any of them.
func (e *refusedError) content() bool {
	switch e.status {
	case http.StatusRequestEntityTooLarge:
		return true
	case http.StatusBadRequest, http.StatusUnprocessableEntity, http.StatusUnsupportedMediaType:
		return e.problem
	default:
		return false
	}
}

// body is the batch as JSON, gzipped.
func body(events [][]byte) ([]byte, error) {
	var packed bytes.Buffer
	zipper, err := gzip.NewWriterLevel(&packed, gzip.BestSpeed)
	if err != nil {
		return nil, fmt.Errorf("packing events: %w", err)
	}
	write := func(part []byte) {
		if err == nil {
			_, err = zipper.Write(part)
		}
	}
	write([]byte("["))
	for i, event := range events {
		if i > 0 {
			write([]byte(","))
		}
		write(event)
	}
	write([]byte("]"))
	if closing := zipper.Close(); err == nil {
		err = closing
	}
	if err != nil {
		return nil, fmt.Errorf("packing events: %w", err)
	}
	return packed.Bytes(), nil
}

// post sends a batch to one node.
func post(
	ctx context.Context, client *http.Client, endpoint, token string, packed []byte,
) (verdict, error) {
	ctx, cancel := context.WithTimeout(ctx, postTimeout)
	defer cancel()
	request, err := http.NewRequestWithContext(
		ctx, http.MethodPost, endpoint+eventsPath, bytes.NewReader(packed))
	if err != nil {
		return verdict{}, fmt.Errorf("preparing a request: %w", err)
	}
	request.Header.Set("Authorization", "Bearer "+token)
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("Content-Encoding", "gzip")
	request.Header.Set("User-Agent", "weir-gateway")
	response, err := client.Do(request)
	if err != nil {
		return verdict{}, err
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(response.Body, answerBytesMax))
	if err != nil {
		return verdict{}, fmt.Errorf("reading an answer: %w", err)
	}
	if response.StatusCode != http.StatusOK {
		kind, _, err := mime.ParseMediaType(response.Header.Get("Content-Type"))
		refused := &refusedError{
			status: response.StatusCode, problem: err == nil && kind == "application/problem+json",
		}
		if seconds, err := strconv.Atoi(response.Header.Get("Retry-After")); err == nil {
			refused.after = time.Duration(seconds) * time.Second
		}
		return verdict{}, refused
	}
	var taken verdict
	if err := json.Unmarshal(answer, &taken); err != nil {
		return verdict{}, fmt.Errorf("reading an answer: %w", err)
	}
	return taken, nil
}

// isContent tells refusals of what was sent from failures to take it.
func isContent(err error) bool {
	var refused *refusedError
	return errors.As(err, &refused) && refused.content()
}

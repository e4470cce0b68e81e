package check

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"golang.org/x/net/http/httpguts"
)

const (
	checkPath   = "/api/v1/quota/check"
	readyPath   = "/readyz"
	clusterPath = "/api/v1/cluster"
	// What a broken node can make the gateway read: one decision with every quota and rate that a
	// plan may have, and batchMax decisions of 32 KB.
	answerBytesMax      = 1 << 20
	batchAnswerBytesMax = 8 << 20

	ownerHeader = "X-Weir-Owner"
	hopsHeader  = "X-Weir-Hops"
)

// errAnswerTooLong says that a node answers, and more than the gateway reads.
var errAnswerTooLong = errors.New("a node's answer is too long")

// wire speaks with one node.
type wire struct {
	base   string
	token  string
	client *http.Client
}

// answer is a decision or why there is none.
type answer struct {
	decision *Decision
	err      error
}

// owner is who decided, as a node told it with a single check.
type owner struct {
	id   string
	hops string
}

// single asks one question in the form that also tells the owner.
func (w *wire) single(ctx context.Context, q *Question) (answer, owner) {
	values := make(url.Values, 3)
	if q.Method != "" {
		values.Set("method", q.Method)
	}
	if q.Path != "" {
		values.Set("path", q.Path)
	}
	if q.Cost != nil {
		values.Set("cost", strconv.FormatUint(*q.Cost, 10))
	}
	target := w.base + checkPath
	if len(values) > 0 {
		target += "?" + values.Encode()
	}
	request, err := w.request(ctx, http.MethodGet, target, nil)
	if err != nil {
		return answer{err: err}, owner{}
	}
	// The key travels in a header, because addresses end up in logs.
	request.Header.Set("X-Subscription-Key", q.Key)
	request.Header.Set("Idempotency-Key", q.RequestID)
	response, body, err := w.exchange(request, answerBytesMax)
	if err != nil {
		return answer{err: err}, owner{}
	}
	decision := &Decision{Received: time.Now()}
	if err := json.Unmarshal(body, decision); err != nil {
		return answer{err: fmt.Errorf("reading a decision: %w", err)}, owner{}
	}
	if decision.Reason == "" {
		return answer{err: fmt.Errorf("a node answered 200 without a decision")}, owner{}
	}
	who := owner{id: response.Header.Get(ownerHeader), hops: response.Header.Get(hopsHeader)}
	return answer{decision: decision}, who
}

// asHeader says whether a key can be sent as a header's value, byte for byte.
func asHeader(key string) bool {
	for i := 0; i < len(key); i++ {
		if key[i] < 0x21 || key[i] > 0x7e {
			return false
		}
	}
	return httpguts.ValidHeaderFieldValue(key)
}

type batchItem struct {
	Key       string  `json:"subscriptionKey"`
	Cost      *uint64 `json:"cost,omitempty"`
	Method    string  `json:"method,omitempty"`
	Path      string  `json:"path,omitempty"`
	RequestID string  `json:"requestId,omitempty"`
}

type batchResult struct {
	Decision
	Error *struct {
		Code string `json:"code"`
	} `json:"error"`
}

// batch asks several questions at once; one answer for each, in order.
func (w *wire) batch(ctx context.Context, questions []*Question) []answer {
	answers := make([]answer, len(questions))
	fail := func(err error) []answer {
		for i := range answers {
			answers[i].err = err
		}
		return answers
	}
	checks := make([]batchItem, len(questions))
	for i, q := range questions {
		checks[i] = batchItem{q.Key, q.Cost, q.Method, q.Path, q.RequestID}
	}
	body, err := json.Marshal(map[string]any{"checks": checks})
	if err != nil {
		return fail(fmt.Errorf("writing checks: %w", err))
	}
	request, err := w.request(ctx, http.MethodPost, w.base+checkPath, body)
	if err != nil {
		return fail(err)
	}
	request.Header.Set("Content-Type", "application/json")
	// Every check has an id of its own, so the transport may send it again on a stale connection.
	request.Header.Set("X-Idempotency-Key", questions[0].RequestID)
	_, body, err = w.exchange(request, batchAnswerBytesMax)
	if err != nil {
		return fail(err)
	}
	var read struct {
		Results []batchResult `json:"results"`
	}
	if err := json.Unmarshal(body, &read); err != nil {
		return fail(fmt.Errorf("reading decisions: %w", err))
	}
	if len(read.Results) != len(questions) {
		return fail(fmt.Errorf("%d answers to %d checks", len(read.Results), len(questions)))
	}
	received := time.Now()
	for i := range read.Results {
		result := &read.Results[i]
		switch {
		case result.Error != nil:
			answers[i].err = itemError(result.Error.Code)
		case result.Reason == "":
			answers[i].err = fmt.Errorf("a node answered a check without a decision")
		default:
			result.Received = received
			answers[i].decision = &result.Decision
		}
	}
	return answers
}

// itemError gives an item's code the status that a single check would have had.
func itemError(code string) error {
	switch code {
	case "invalid_check", "invalid_parameter", "missing_key", "invalid_request_id":
		return &statusError{status: http.StatusBadRequest, code: code}
	default:
		return &statusError{status: http.StatusServiceUnavailable, code: code}
	}
}

// ready asks whether the node serves.
func (w *wire) ready(ctx context.Context) bool {
	request, err := w.request(ctx, http.MethodGet, w.base+readyPath, nil)
	if err != nil {
		return false
	}
	_, _, err = w.exchange(request, answerBytesMax)
	return err == nil
}

// cluster asks for the nodes' addresses by their ids. Needs a token that may read them.
func (w *wire) cluster(ctx context.Context) (map[string]string, error) {
	request, err := w.request(ctx, http.MethodGet, w.base+clusterPath, nil)
	if err != nil {
		return nil, err
	}
	_, body, err := w.exchange(request, answerBytesMax)
	if err != nil {
		return nil, err
	}
	var read struct {
		Nodes []struct {
			ID   string `json:"id"`
			HTTP string `json:"http"`
		} `json:"nodes"`
	}
	if err := json.Unmarshal(body, &read); err != nil {
		return nil, fmt.Errorf("reading the cluster's nodes: %w", err)
	}
	nodes := make(map[string]string, len(read.Nodes))
	for _, node := range read.Nodes {
		if node.ID != "" && node.HTTP != "" {
			nodes[node.ID] = node.HTTP
		}
	}
	return nodes, nil
}

func (w *wire) request(
	ctx context.Context, method, target string, body []byte,
) (*http.Request, error) {
	var reader io.Reader
	if body != nil {
		reader = bytes.NewReader(body)
	}
	request, err := http.NewRequestWithContext(ctx, method, target, reader)
	if err != nil {
		return nil, fmt.Errorf("preparing a request: %w", err)
	}
	request.Header.Set("Authorization", "Bearer "+w.token)
	request.Header.Set("User-Agent", "weir-gateway")
	return request, nil
}

// exchange sends a request and reads a 200 whole, or fails with errAnswerTooLong; any other status
// is an error.
func (w *wire) exchange(request *http.Request, bytesMax int64) (*http.Response, []byte, error) {
	response, err := w.client.Do(request)
	if err != nil {
		return nil, nil, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, bytesMax+1))
	if err != nil {
		return nil, nil, fmt.Errorf("reading an answer: %w", err)
	}
	if response.StatusCode != http.StatusOK {
		var problem struct {
			Code string `json:"code"`
		}
		// A body that is no problem document leaves the code empty.
		_ = json.Unmarshal(body, &problem)
		return nil, nil, &statusError{status: response.StatusCode, code: problem.Code}
	}
	if int64(len(body)) > bytesMax {
		return nil, nil, errAnswerTooLong
	}
	return response, body, nil
}

"""Asks a running vLLM engine about pictures: prompt, one token, its log-probabilities."""

import asyncio
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from roadstream.workers.engines.vllm.child import engine_rendering
    from roadstream.workers.engines.vllm.child import engine_wire as wire
else:
    import engine_rendering
    import engine_wire as wire


class Asker:
    """Asks one engine.

    Args:
        engine: An ``AsyncLLM``.
        renderers: Processes that prepare pictures; ``None`` leaves it to the engine's front end.
    """

    def __init__(self, engine: Any, renderers: Executor | None) -> None:
        self._engine, self._renderers = engine, renderers
        self._tokenizer = engine.get_tokenizer()
        self._adapter = picture_adapter(engine.vllm_config.lora_config)

    async def ask(self, ask: wire.Ask) -> wire.FromEngine:
        """Return the model's answer, or why there is none.

        Raises:
            Exception: What vLLM raises; ``EngineDeadError`` when it is gone.
        """
        try:
            async with asyncio.timeout(ask.patience):
                prompt = await self._render(ask)
                text = ""
                if ask.how.reasoning_tokens:
                    reasoned, text, cut = await self._reason(prompt, ask)
                    if cut and ask.how.reasoning_cut == "abstain":
                        spent = ask.how.reasoning_tokens
                        return wire.Undecided(ask.number, f"no answer after {spent} tokens")
                    prompt = prompt | {"prompt_token_ids": reasoned}
                return await self._answer(prompt, ask, text)
        except TimeoutError:
            return wire.Late(ask.number)

    async def _render(self, ask: wire.Ask) -> dict[str, Any]:
        if self._renderers is None:
            chat = engine_rendering.conversation(ask)
            params = engine_rendering.chat_params(ask)
            _, (prompt,) = await self._engine.renderer.render_chat_async([chat], params)
            return dict(prompt)
        loop = asyncio.get_running_loop()
        asked = wire.encode(ask)
        done = await loop.run_in_executor(self._renderers, engine_rendering.render, asked)
        return dict(done)

    async def _reason(
        self, prompt: Mapping[str, Any], ask: wire.Ask
    ) -> tuple[list[int], str, bool]:
        """Return the prompt with the reasoning closed, the reasoning, and whether it was cut."""
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        how = ask.how
        end = self._tokens(how.reasoning_end)
        params = SamplingParams(
            max_tokens=how.reasoning_tokens,
            temperature=how.reasoning_temperature,
            seed=0,
            # A tokenizer may spell the end in several tokens, which only the text can tell.
            stop=None if len(end) == 1 else [how.reasoning_end],
            stop_token_ids=[end[0]] if len(end) == 1 else None,
            include_stop_str_in_output=True,
            detokenize=len(end) != 1,
            output_kind=RequestOutputKind.FINAL_ONLY,
        )
        output = await self._generate(prompt, params, f"{ask.number}.reason")
        tokens = list(output.token_ids)
        # At the end of the text, which is none of the reasoning, no reason to stop is given.
        cut = output.finish_reason != "stop" or output.stop_reason is None
        if cut and tokens and tokens[-1] == self._tokenizer.eos_token_id:
            tokens.pop()
        if not cut and len(end) == 1 and tokens[-1:] != list(end):
            tokens.append(end[0])
        said = self._tokenizer.decode(tokens).partition(how.reasoning_end)[0]
        kept = " ".join(said.split())[-how.reasoning_kept :] if how.reasoning_kept else ""
        closing = self._tokens(f"\n{how.reasoning_end}\n\n" if cut else "\n\n")
        return [*prompt["prompt_token_ids"], *tokens, *closing], kept, cut

    async def _answer(self, prompt: Mapping[str, Any], ask: wire.Ask, text: str) -> wire.Answered:
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        top = ask.how.top_logprobs
        params = SamplingParams(
            max_tokens=1,
            temperature=0,
            logprobs=top or None,
            logprob_token_ids=None if top else ask.how.tokens,
            detokenize=False,
            output_kind=RequestOutputKind.FINAL_ONLY,
        )
        output = await self._generate(prompt, params, str(ask.number))
        (found,) = output.logprobs
        if not top:
            exact = {token: found[token].logprob for token in ask.how.tokens}
            return wire.Answered(ask.number, exact, [], text)
        spelled = self._tokenizer.convert_ids_to_tokens(list(found))
        pairs = zip(spelled, found.values(), strict=True)
        likely = [(token, one.logprob) for token, one in pairs]
        return wire.Answered(ask.number, {}, likely, text)

    async def _generate(self, prompt: Mapping[str, Any], params: Any, name: str) -> Any:
        """Return the request's only completion; cancelled, it is aborted in the engine."""
        last = None
        answering = self._engine.generate(prompt, params, name, lora_request=self._adapter)
        async for output in answering:
            last = output
        if last is None:
            raise RuntimeError(f"request {name} ended without an output")
        return last.outputs[0]

    def _tokens(self, text: str) -> Sequence[int]:
        found: Sequence[int] = self._tokenizer.encode(text, add_special_tokens=False)
        return found


def picture_adapter(config: Any) -> Any:
    """Return a request for the adapter that pictures need (``default_mm_loras``), or ``None``.

    vLLM's server adds it to requests by itself, and ``AsyncLLM`` does not.

    Args:
        config: A ``LoRAConfig``, or ``None``.
    """
    path = ((config and config.default_mm_loras) or {}).get("image")
    if path is None:
        return None
    from vllm.lora.request import LoRARequest

    return LoRARequest("image", 1, path)

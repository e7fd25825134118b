"""The network: six numbers in, a speech recogniser out.

`model.config` says what can be chosen and imports nothing heavy; `model.recogniser`
builds the network. Read the parts in this order: `positions`, `attention`,
`convolution`, `subsampling`, `encoder`, `ctc`, `decoder`, `beam_search`, `transducer`,
`recogniser`. `espnet` maps checkpoints from ESPnet's into this network and back.
"""
